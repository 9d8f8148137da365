const button = document.getElementById("unfold");
if (button) {
  button.hidden = false;
  button.onclick = () => {
    const folded = document.querySelectorAll("#samples details:not([open])");
    const all = folded.length ? folded : document.querySelectorAll("#samples details");
    all.forEach((part) => { part.open = folded.length > 0; });
    button.textContent = folded.length ? "Fold all reasoning" : "Unfold all reasoning";
  };
}
