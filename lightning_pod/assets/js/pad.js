// A drawing pad: ink on ground, by mouse, pen or finger. After each stroke `image` holds a PNG as a data URL.
export default {
  render({ model, el }) {
    const size = 280, canvas = document.createElement("canvas");
    canvas.width = canvas.height = size;
    canvas.className = "pod-pad";
    canvas.setAttribute("aria-label", "drawing pad");
    el.appendChild(canvas);
    const g = canvas.getContext("2d", { willReadFrequently: true });
    let last = null;
    const clear = () => { g.fillStyle = model.get("ground"); g.fillRect(0, 0, size, size); };
    const at = (e) => {
      const r = canvas.getBoundingClientRect();
      return [((e.clientX - r.left) / r.width) * size, ((e.clientY - r.top) / r.height) * size];
    };
    const line = (a, b) => {
      g.strokeStyle = model.get("ink"); g.lineWidth = model.get("stroke"); g.lineCap = g.lineJoin = "round";
      g.beginPath(); g.moveTo(...a); g.lineTo(b[0] + 0.01, b[1]); g.stroke();
    };
    const send = () => { model.set("image", canvas.toDataURL("image/png")); model.save_changes(); };
    canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); last = at(e); line(last, last); e.preventDefault(); });
    canvas.addEventListener("pointermove", (e) => {
      if (!last) return;
      for (const c of e.getCoalescedEvents?.().length ? e.getCoalescedEvents() : [e]) { const p = at(c); line(last, p); last = p; }
    });
    const end = () => { if (last) { last = null; send(); } };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    model.on("change:cleared", clear);
    model.on("change:ground", clear);
    clear();
  },
};
