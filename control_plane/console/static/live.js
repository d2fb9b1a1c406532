// Keeps an open page true: swaps what the server sends, shows times in the viewer's zone and counts the age of the data.
"use strict";

const OLD_AFTER_S = 15;
const zone = Intl.DateTimeFormat(undefined, { timeZoneName: "short" }).formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;

function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    element.textContent = "full" in element.dataset ? `${at.toLocaleString()} ${zone}` : at.toLocaleTimeString(undefined, { hour12: false });
    element.title = `${at.toLocaleString()} ${zone}`;
  }
}

function showAge() {
  const age = document.getElementById("age");
  if (!age || !age.dataset.asOf) return;
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(age.dataset.asOf)) / 1000));
  age.classList.toggle("old", seconds > OLD_AFTER_S);
  const length = seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
  age.textContent = seconds > OLD_AFTER_S ? `data ${length} old, waiting for Backstay` : `data ${length} old`;
}

function take(live, html) {
  const focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  live.innerHTML = html;
  localTimes(live);
  const now = live.querySelector("[data-as-of]");
  const age = document.getElementById("age");
  if (now && age) age.dataset.asOf = now.dataset.asOf;
  const heading = live.querySelector("h1");
  if (heading) document.title = `Backstay: ${heading.textContent}`;
  if (focused) live.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  showAge();
}

const live = document.getElementById("live");
if (live) {
  const source = new EventSource(live.dataset.stream);
  source.addEventListener("now", (event) => take(live, event.data));
  source.addEventListener("bye", () => { source.close(); location.reload(); });
}
localTimes(document);
showAge();
setInterval(showAge, 1000);
