addEventListener("input", (event) => {
  const range = event.target;
  if (range.matches(".compare > input")) range.parentElement.style.setProperty("--split", range.value + "%");
});

for (const form of document.querySelectorAll("form.filters")) {
  const items = [...form.closest("section").querySelectorAll("[data-folder]")];
  const filter = () => {
    const chosen = [...form.querySelectorAll("select")].filter((select) => select.selectedIndex > 0);
    for (const item of items) item.hidden = !chosen.every((select) => item.dataset[select.name] === select.value);
    const left = items.filter((item) => !item.hidden).length;
    form.querySelector("output").textContent = chosen.length ? `${left} of these ${items.length}` : "";
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter(); // a reloaded page keeps its choices
}
