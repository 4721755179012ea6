// What a reader could not read: text cut off or covered by other text, and boxes that stick out.
// Returns one line for each defect.
() => {
  const SLACK = 1.5;
  const found = [];
  const show = (element) => (element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
  const seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });

  const outside = (box, frame) =>
    box.left < frame.left - SLACK || box.right > frame.right + SLACK ||
    box.top < frame.top - SLACK || box.bottom > frame.bottom + SLACK;

  for (const svg of document.querySelectorAll("svg")) {
    if (!seen(svg)) continue;
    const name = (svg.closest("figure")?.querySelector("figcaption, h3, h4") ?? svg)
      .textContent.trim().slice(0, 40) || svg.id;
    const frame = svg.getBoundingClientRect();
    if (!frame.width || !frame.height) { found.push(`${name}: an empty figure`); continue; }
    const texts = [...svg.querySelectorAll("text")].filter((each) => seen(each) && show(each));
    const boxes = texts.map((each) => each.getBoundingClientRect());
    texts.forEach((text, place) => {
      if (outside(boxes[place], frame)) found.push(`${name}: «${show(text)}» is cut`);
    });
    const order = boxes.map((_, place) => place).sort((a, b) => boxes[a].left - boxes[b].left);
    order.forEach((one, place) => {
      const box = boxes[one];
      for (let next = place + 1; next < order.length; next++) {
        const other = boxes[order[next]];
        if (other.left >= box.right - SLACK) break;
        const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        // a box has the room of a line above and below its letters
        if (high > 0.35 * Math.min(box.height, other.height)) {
          found.push(`${name}: «${show(texts[one])}» overlaps «${show(texts[order[next]])}»`);
        }
      }
    });
  }

  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    found.push(`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth}`);
  }
  const scrolls = (element) => {
    for (let each = element; each && each !== root; each = each.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(each).overflowX)) return true;
    }
    return false;
  };
  const words = "h1, h2, h3, h4, p, li, dt, dd, summary, figcaption, caption, td, th, nav, a, button";
  for (const element of document.querySelectorAll(words)) {
    if (!seen(element) || element.closest("svg") || scrolls(element)) continue;
    if (["hidden", "clip"].includes(getComputedStyle(element).overflowX)) {
      if (element.clientWidth > 1 && element.scrollWidth > element.clientWidth + SLACK) {
        found.push(`${element.tagName} «${show(element)}» is cut`);
      }
      continue;
    }
    const box = element.getBoundingClientRect();
    if (element.matches("a[href^='#']") && box.right <= 0) continue; // shown once it has the focus
    if (box.width > 1 && (box.right > root.clientWidth + SLACK || box.left < -SLACK)) {
      found.push(`${element.tagName} «${show(element)}» sticks out of the page`);
    }
  }
  return found;
}
