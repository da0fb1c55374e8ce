// A line under the mouse that says what was in force, and zoom: drag over a part of the timeline; a double click shows all.
(() => {
  const svg = document.querySelector(".timeline"), plot = svg && svg.querySelector(".plot");
  if (!plot) return;
  const faults = JSON.parse(document.getElementById("facts").textContent).faults;
  const left = +svg.dataset.left, seconds = +svg.dataset.seconds;
  const [, , width, height] = plot.getAttribute("viewBox").split(" ").map(Number);
  const readout = document.getElementById("readout"), hint = document.getElementById("hint");
  hint.append(" Drag to zoom, double-click to see all again.");
  const add = (tag, name) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    element.setAttribute("class", name);
    svg.append(element);
    return element;
  };
  const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
  const crosshair = add("line", "crosshair"), chosen = add("rect", "chosen");
  let view = { x: 0, width }, from = null;

  const within = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width - left;
    return Math.min(Math.max(x, 0), width);
  };
  const hide = () => {
    set(crosshair, { x1: -9, x2: -9 });
    set(chosen, { width: 0 });
    readout.hidden = true;
  };
  const zoom = (x, to) => {
    view = { x, width: to - x };
    plot.setAttribute("viewBox", `${x} 0 ${view.width} ${height}`);
    for (const label of svg.querySelectorAll("text[data-at]")) {
      const at = (+label.dataset.at - x) / view.width * width;
      label.setAttribute("x", left + at);
      label.style.display = at < -0.01 || at > width + 0.01 ? "none" : "";
    }
  };
  svg.addEventListener("mousemove", (event) => {
    const x = within(event), time = (view.x + x / width * view.width) / width * seconds;
    set(crosshair, { x1: left + x, x2: left + x, y1: 20, y2: height - 22 });
    if (from !== null) set(chosen, { x: left + Math.min(from, x), width: Math.abs(from - x), y: 20, height: height - 42 });
    const now = faults.filter(([start, end]) => start <= time && time <= end);
    readout.textContent = [`${time.toFixed(3)} s`, ...now.map(([, , name, what]) => `${name}: ${what}`)].join("\n");
    readout.hidden = false;
    const flip = event.clientX > innerWidth - 370;
    readout.style.left = flip ? "" : `${event.clientX + 16}px`;
    readout.style.right = flip ? `${innerWidth - event.clientX + 16}px` : "";
    readout.style.top = `${event.clientY + 14}px`;
  });
  svg.addEventListener("mouseleave", () => { from = null; hide(); });
  svg.addEventListener("mousedown", (event) => { from = within(event); event.preventDefault(); });
  svg.addEventListener("mouseup", (event) => {
    const to = within(event), [low, high] = [Math.min(from ?? to, to), Math.max(from ?? to, to)];
    from = null;
    set(chosen, { width: 0 });
    if (high - low > 4) zoom(view.x + low / width * view.width, view.x + high / width * view.width);
  });
  svg.addEventListener("dblclick", () => zoom(0, width));
  hide();
})();
