const D = JSON.parse(document.getElementById("data").textContent), all = (q, e = document) => [...e.querySelectorAll(q)];
const box = document.getElementById("box"), say = (tag, text, cls) => Object.assign(document.createElement(tag), { textContent: text, className: cls || "" });
for (const e of all("img[data-i]")) e.src = D.images[e.dataset.i];
function card(n) {
  const [i, key, label, said, p] = D.rows[n], f = say("figure", "", "one"), d = say("div", ""), c = say("figcaption", "");
  const im = new Image(); im.src = D.images[i]; im.alt = key; d.append(im);
  c.append(say("b", D.classes[said], label == said ? "yes" : "no"), " " + Math.round(100 * p) + "%");
  if (label != said) c.append(say("br", ""), "is " + D.classes[label]);
  c.append(say("br", ""), say("span", key, "k")); f.append(d, c);
  return f;
}
for (const b of all("[data-cell]")) b.onclick = () => {
  const [i, j] = b.dataset.cell.split(","), ns = D.cells[b.dataset.cell] || [], n = +b.textContent;
  box.querySelector("h3").textContent = `${D.classes[i]}, ${i == j ? "recognised" : "taken for " + D.classes[j]}: ${n} image${n == 1 ? "" : "s"}` + (ns.length < n ? `, ${ns.length} of them here` : "");
  box.querySelector(".row").replaceChildren(...ns.map(card));
  box.showModal(); box.scrollTop = 0;
};
box.onclick = e => { if (e.target == box) box.close(); };
const fix = document.querySelector(".fix"), quoted = s => /[",\n]/.test(s) ? '"' + s.replaceAll('"', '""') + '"' : s;
if (fix) {
  const text = () => "key,label\n" + all("select[data-key]").filter(s => s.value != "keep").map(s => quoted(s.dataset.key) + "," + (s.value == "out" ? "" : quoted(D.classes[+s.value]))).join("\n") + "\n";
  const tell = () => { const n = all("select[data-key]").filter(s => s.value != "keep").length; fix.querySelector("b").textContent = n; fix.querySelector("pre").textContent = n ? text() : ""; fix.querySelector("button").disabled = !n; };
  for (const s of all("select[data-key]")) s.onchange = tell;
  fix.querySelector("button").onclick = () => { const a = document.createElement("a"); a.href = URL.createObjectURL(new Blob([text()], { type: "text/csv" })); a.download = "corrections.csv"; a.click(); };
  tell();
}
