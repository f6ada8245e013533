// Line charts in SVG. `charts`: [{title, percent, series: [{name, x, y, color, faint}]}], x in epochs.
const W = 420, H = 230, L = 46, R = 10, T = 26, B = 30;
const NS = "http://www.w3.org/2000/svg";

function node(parent, tag, attrs = {}, text) {
  const n = document.createElementNS(NS, tag);
  for (const [k, v] of Object.entries(attrs)) n.setAttribute(k, v);
  if (text !== undefined) n.textContent = text;
  parent.appendChild(n);
  return n;
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1, p = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * p).find((s) => s >= rough * 0.999);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) out.push(v);
  return out;
}

const number = (v, percent) => (percent ? `${(100 * v).toFixed(v > 0.9 && v < 1 ? 1 : 0)} %` : Math.abs(v) >= 10 ? v.toFixed(0) : String(+v.toPrecision(3)));

function chart(el, spec, xmax) {
  const box = document.createElement("div");
  box.className = "pod-chart";
  el.appendChild(box);
  const svg = node(box, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": spec.title });
  node(svg, "text", { x: L, y: 16, class: "pod-chart-title" }, spec.title);
  const all = spec.series.flatMap((s) => s.y.filter((v) => v !== null && isFinite(v)));
  if (!all.length) {
    node(svg, "text", { x: W / 2, y: H / 2, class: "pod-chart-empty" }, "no values yet");
    return;
  }
  let low = Math.min(...all), high = Math.max(...all);
  if (spec.percent) { high = 1; low = Math.min(low, 0.9); }
  else { low = Math.min(low, 0); }
  if (high - low < 1e-6) high = low + 1;
  const px = (x) => L + (x / xmax) * (W - L - R), py = (y) => H - B - ((y - low) / (high - low)) * (H - T - B);
  for (const t of ticks(low, high, 4)) {
    node(svg, "line", { x1: L, x2: W - R, y1: py(t), y2: py(t), class: "pod-grid" });
    node(svg, "text", { x: L - 6, y: py(t) + 4, class: "pod-tick", "text-anchor": "end" }, number(t, spec.percent));
  }
  for (const t of ticks(0, xmax, 6).filter(Number.isInteger))
    node(svg, "text", { x: px(t), y: H - B + 15, class: "pod-tick", "text-anchor": "middle" }, t);
  node(svg, "text", { x: W - R, y: H - 2, class: "pod-tick", "text-anchor": "end" }, "epoch");
  let lx = W - R;
  for (const s of [...spec.series].reverse().filter((s) => s.y.length)) {
    const t = node(svg, "text", { x: lx, y: 16, class: "pod-tick", "text-anchor": "end", style: `fill:${s.color}` }, s.name);
    lx -= s.name.length * 6.1 + 14;
  }
  for (const s of spec.series) {
    let d = "", pen = false;
    s.x.forEach((x, i) => {
      if (s.y[i] === null || !isFinite(s.y[i])) { pen = false; return; }
      d += `${pen ? "L" : "M"}${px(x).toFixed(1)} ${py(s.y[i]).toFixed(1)}`;
      pen = true;
    });
    node(svg, "path", { d, fill: "none", stroke: s.color, "stroke-width": s.faint ? 1 : 2, opacity: s.faint ? 0.45 : 1 });
    if (!s.faint && s.x.length < 60)
      s.x.forEach((x, i) => s.y[i] !== null && node(svg, "circle", { cx: px(x), cy: py(s.y[i]), r: 2.4, fill: s.color }));
  }
  const rule = node(svg, "line", { y1: T, y2: H - B, class: "pod-rule", visibility: "hidden" });
  const tip = document.createElement("div");
  tip.className = "pod-tip";
  box.appendChild(tip);
  svg.addEventListener("pointermove", (e) => {
    const r = svg.getBoundingClientRect(), x = (((e.clientX - r.left) / r.width) * W - L) / (W - L - R) * xmax;
    const rows = spec.series.filter((s) => s.x.length).map((s) => {
      const i = s.x.reduce((b, v, k) => (Math.abs(v - x) < Math.abs(s.x[b] - x) ? k : b), 0);
      return { s, x: s.x[i], y: s.y[i] };
    });
    if (!rows.length) return;
    const at = rows.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a)).x;
    rule.setAttribute("x1", px(at)); rule.setAttribute("x2", px(at)); rule.setAttribute("visibility", "visible");
    tip.replaceChildren(...[`epoch ${+at.toFixed(2)}`, ...rows.map((q) => `${q.s.name} ${q.y === null ? "–" : spec.percent ? (100 * q.y).toFixed(2) + " %" : q.y.toFixed(4)}`)].map((t) => {
      const p = document.createElement("div"); p.textContent = t; return p;
    }));
    tip.style.display = "block";
    tip.style.left = `${Math.min(70, (px(at) / W) * 100)}%`;
  });
  svg.addEventListener("pointerleave", () => { rule.setAttribute("visibility", "hidden"); tip.style.display = "none"; });
}

export default {
  render({ model, el }) {
    el.classList.add("pod-charts");
    const draw = () => {
      if (el.querySelector(".pod-tip[style*=block]")) return; // a reader is pointing at it: the next change redraws
      el.replaceChildren();
      for (const c of model.get("charts")) chart(el, c, Math.max(1, model.get("epochs")));
      el.dataset.points = model.get("charts").reduce((n, c) => n + c.series.reduce((m, s) => m + s.x.length, 0), 0);
    };
    model.on("change:charts", draw);
    draw();
  },
};
