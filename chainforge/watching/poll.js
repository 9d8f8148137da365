// Ask for the page again, and put its <main> in the place of this one; what a person has folded stays so.
const every = 1000 * Number(document.querySelector("main").dataset.every);
const silent = document.getElementById("silent");
const poll = async () => {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const later = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    const main = document.querySelector("main");
    later.querySelectorAll("details").forEach((part) => {
      const now = document.getElementById(part.id);
      if (now) part.open = now.open;
    });
    const chosen = window.getSelection();
    if (!chosen || chosen.isCollapsed) main.replaceWith(later); // somebody is copying a text: not now
    document.title = "ChainForge: " + later.querySelector("h1").textContent;
    silent.hidden = true;
  } catch (error) {
    silent.hidden = false;
  }
  setTimeout(poll, every);
};
if (every) setTimeout(poll, every);
