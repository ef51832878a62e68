from __future__ import annotations

from configs.rows import Sample
from data_gen.select import at_most, unique_correct


def sample(identity: str, text: str = "4", finish: str = "stop", tokens: int = 1) -> Sample:
    return Sample(
        id=identity, parents=[identity.split("#")[0]], stage="sample", problem=identity.split("#")[0], prompt_ids=[1],
        token_ids=[2] * tokens, text=text, logprobs=[0.0] * tokens, logprob=0.0, finish_reason=finish,
        temperature=1.0, top_p=1.0, seed=0, model="m",
    )


def ids(samples: list[Sample]) -> list[str]:
    return [s.id for s in samples]


def test_only_correct_samples_that_ended_by_themselves_are_kept():
    samples = [sample("a#0"), sample("a#1", "5"), sample("a#2", "2+2 = 4", finish="length"), sample("b#0")]
    assert ids(unique_correct(samples, {"a#0", "a#2", "b#0"})) == ["a#0", "b#0"]


def test_the_same_text_counts_once_a_problem_spaces_aside():
    texts = ["2 + 2\n= 4", " 2 + 2 = 4 ", "2+2=4"]
    samples = [sample(f"a#{i}", t) for i, t in enumerate(texts)] + [sample("b#0", texts[0])]
    assert ids(unique_correct(samples, set(ids(samples)))) == ["a#0", "a#2", "b#0"]


def test_a_cut_off_sample_does_not_hide_a_whole_one():
    samples = [sample("a#0", finish="length"), sample("a#1")]
    assert ids(unique_correct(samples, {"a#0", "a#1"})) == ["a#1"]


def test_at_most_takes_the_lowest_ranks_and_keeps_the_problems_in_order():
    samples = [sample("b#0", tokens=3), sample("a#0", tokens=9), sample("b#1", tokens=1), sample("b#2", tokens=3)]
    chosen = at_most(samples, 2, lambda s: (float(len(s.token_ids)), s.id))
    assert ids(chosen) == ["b#1", "b#0", "a#0"]
    assert at_most([], 2, lambda s: (0.0, s.id)) == []
