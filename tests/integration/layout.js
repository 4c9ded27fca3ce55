// Returns what is wrong with the layout of the page, as a list of sentences.
(() => {
  const problems = [];
  const width = document.documentElement.clientWidth;
  const root = document.documentElement;
  if (root.scrollWidth > width) problems.push(`the page is ${root.scrollWidth} px wide`);

  const name = (element) => `${element.tagName.toLowerCase()}.${element.className.baseVal ?? element.className}`;
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > width + 0.5 || box.left < -0.5)) problems.push(`${name(element)} reaches outside`);
  }

  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const channel = (value) => (value <= 10.31 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) => 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  const ground = (element) => {
    const [red, green, blue, alpha = 1] = numbers(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? [red, green, blue] : ground(element.parentElement);
  };
  const contrast = (element, colour) => {
    const [dark, light] = [luminance(numbers(colour)), luminance(ground(element))].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const parent = text.parentElement;
    if (!text.data.trim() || !parent.checkVisibility() || parent.closest("script, option")) continue;
    const inDrawing = parent.closest("svg");
    const style = getComputedStyle(parent);
    const found = contrast(parent, inDrawing ? style.fill : style.color);
    if (found < 4.5) problems.push(`contrast ${found.toFixed(1)} of "${text.data.trim().slice(0, 30)}"`);
    if (inDrawing) continue;
    for (const word of text.data.matchAll(/[\p{L}\p{N}]+/gu)) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) problems.push(`"${word[0]}" is broken`);
    }
  }

  for (const image of document.querySelectorAll("img[src]")) {
    if (!image.alt || !image.naturalWidth) problems.push("an image without words or pixels");
  }
  return problems;
})()
