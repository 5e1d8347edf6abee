// Values under the pointer, or at the arrow keys, in charts.
(() => {
  const WIDTH = 320, LEFT = 40, RIGHT = 12;
  const format = (value) => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6) ? value.toExponential(1) : String(Number(value.toPrecision(4))));

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const { range, lines } = JSON.parse(figure.dataset.chart);
    const svg = figure.querySelector(".plot svg"), cursor = svg.querySelector(".cursor"), tip = figure.querySelector(".tip");
    const stops = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    const nearest = (steps, wanted) => steps.reduce((best, step, i) => (Math.abs(step - wanted) < Math.abs(steps[best] - wanted) ? i : best), 0);
    let place = stops.length - 1;
    const show = () => {
      const step = stops[place], share = (step - range[0]) / (range[1] - range[0] || 1);
      const x = LEFT + share * (WIDTH - LEFT - RIGHT);
      cursor.setAttribute("transform", `translate(${x} 0)`);
      cursor.setAttribute("visibility", "visible");
      const near = lines.filter((line) => line.steps[0] <= step && step <= line.steps[line.steps.length - 1]);
      const rows = near.map((line) => `${lines.length > 1 ? line.name + "  " : ""}${format(line.values[nearest(line.steps, step)])}`);
      tip.textContent = [`step ${format(step)}`, ...rows].join("\n");
      tip.hidden = false;
      const left = share > 0.5;
      tip.style.left = left ? "" : `calc(${(100 * x) / WIDTH}% + .5rem)`;
      tip.style.right = left ? `calc(${100 - (100 * x) / WIDTH}% + .5rem)` : "";
    };
    const hide = () => { cursor.setAttribute("visibility", "hidden"); tip.hidden = true; };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const share = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
      place = nearest(stops, range[0] + share * (range[1] - range[0]));
      show();
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      place = Math.min(Math.max(place + (tip.hidden ? 0 : move), 0), stops.length - 1);
      show();
    });
  }
})();
