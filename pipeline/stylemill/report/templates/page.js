addEventListener("input", (event) => {
  const range = event.target;
  if (range.matches(".compare > input")) range.parentElement.style.setProperty("--split", range.value + "%");
});
