// Shows times in the browser's time zone.
"use strict";

for (const element of document.querySelectorAll("time")) {
  const at = new Date(element.textContent);
  if (!Number.isNaN(at.getTime())) {
    element.dateTime = element.textContent;
    element.title = element.textContent;
    element.textContent = at.toLocaleString();
  }
}
