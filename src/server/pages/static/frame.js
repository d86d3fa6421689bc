// Inside a frame of Airflow's UI, which has its own brand and "Log out", the style sheet hides ours. The frame may
// neither navigate the outer window nor open another one, so this script clicks a copy of the link in the outer
// document.
"use strict";

if (window.self !== window.top) {
  document.documentElement.classList.add("framed");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (!link) {
      return;
    }
    const isElsewhere = link.origin !== location.origin;
    if (!isElsewhere && link.target !== "_top") {
      return;
    }
    event.preventDefault();
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    if (isElsewhere) {
      outer.target = "_blank";
      outer.rel = "noopener noreferrer";
    }
    outer.click();
  });
}
