import collections
def test_x(tiny_run):
    from tests.pipelines.test_cli_errors import rows_of
    v={r["sample"]:r for r in rows_of(tiny_run,"iteration1/verify")}
    c=collections.Counter((s["text"], v[s["id"]]["outcome"], v[s["id"]]["extracted"]) for s in rows_of(tiny_run,"iteration1/sample") if s["finish_reason"]=="stop")
    for k,n in c.most_common(): print(n,k)
