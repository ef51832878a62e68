// The sample browser's search and filters. The page reads as well without it: all samples are there, one under the other.
"use strict";
(() => {
  const browser = document.getElementById("browser");
  if (!browser) return;
  const field = (id) => document.getElementById(id);
  const items = [...browser.querySelectorAll("details.sample")].map((node) => ({
    node, text: node.textContent.toLowerCase(), stage: node.parentElement.dataset.stage,
    verdict: node.dataset.verdict, used: node.dataset.used === "yes",
  }));
  const groups = [...browser.querySelectorAll("details.group")];
  const show = () => {
    const words = field("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const stage = field("stage").value, verdict = field("verdict").value, used = field("used").checked;
    let count = 0;
    for (const item of items) {
      const kept = (!stage || item.stage === stage) && (!verdict || item.verdict === verdict) && (!used || item.used) &&
        words.every((word) => item.text.includes(word));
      item.node.hidden = !kept;
      count += kept;
    }
    const asked = words.length || stage || verdict || used;
    for (const group of groups) {
      group.hidden = !group.querySelector("details.sample:not([hidden])");
      if (asked) group.open = true;
    }
    field("count").textContent = `${count} of ${items.length} shown`;
  };
  field("controls").hidden = false;
  field("controls").addEventListener("input", show);
  show();
})();

// On narrow screens the table of contents begins closed.
(() => {
  const contents = document.querySelector("nav > details");
  if (contents && matchMedia("(max-width: 72rem)").matches) contents.open = false;
})();
