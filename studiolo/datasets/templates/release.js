/* Shows the rows that the scripts beside this one hand over. All text goes in as text, never as markup. */
"use strict";
const release = (() => {
  const PAGE = 60;
  const FOLDER = "browse/";
  const SVG = "http://www.w3.org/2000/svg";
  const chunks = [];
  let rows = [];
  let shown = [];
  let drawn = 0;
  let place = 0;

  const find = (selector) => document.querySelector(selector);
  const make = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const filters = find(".filters");
  const list = find(".faces");
  const one = find("dialog.face");
  const labelling = find("dialog.labelling");

  // What is asked for.
  const gender = (row) => (row.p_female >= 0.8 ? "woman" : 1 - row.p_female >= 0.8 ? "man" : "not sure");
  const decade = (row) => (row.age >= 80 ? "80+" : `${Math.floor(row.age / 10) * 10}-${Math.floor(row.age / 10) * 10 + 9}`);
  const words = (row) => {
    row.words ??= [row.id, row.uri, row.source, row.identity, row.licence, ...row.tags, ...row.captions.map((c) => c.text)]
      .join("\n")
      .toLowerCase();
    return row.words;
  };
  const passes = (row, want) =>
    (!want.source || row.source === want.source) &&
    (!want.split || row.split === want.split) &&
    (!want.gender || gender(row) === want.gender) &&
    (!want.age || decade(row) === want.age) &&
    (!want.part || (want.part[0] === "-" ? !(want.part.slice(1) in row.parts) : want.part in row.parts)) &&
    row.quality >= (Number(want.quality) || 0) &&
    want.words.every((word) => words(row).includes(word));
  const ORDERS = {
    "": (a, b) => (a.id < b.id ? -1 : 1),
    quality: (a, b) => a.quality - b.quality,
    "-quality": (a, b) => b.quality - a.quality,
    age: (a, b) => a.age - b.age,
    "-age": (a, b) => b.age - a.age,
    identity: (a, b) => (a.identity < b.identity ? -1 : a.identity > b.identity ? 1 : 0),
  };
  const wanted = () => {
    const want = Object.fromEntries(new FormData(filters));
    want.words = want.words.toLowerCase().split(/\s+/).filter(Boolean);
    return want;
  };
  const look = () => {
    const want = wanted();
    shown = rows.filter((row) => passes(row, want)).sort((a, b) => ORDERS[want.order](a, b) || ORDERS[""](a, b));
    find(".found [role=status]").textContent =
      shown.length === rows.length ? `${rows.length} faces` : `${shown.length} of ${rows.length} faces`;
    find(".export").disabled = !shown.length;
    list.replaceChildren();
    drawn = 0;
    draw();
  };

  // The grid.
  const picture = (row, alt, lazy) => {
    const image = make("img");
    image.src = FOLDER + row.picture;
    image.width = image.height = row.side;
    image.alt = alt;
    if (lazy) image.loading = "lazy";
    image.decoding = "async";
    return image;
  };
  const shapes = (row) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${row.side} ${row.side}`);
    svg.setAttribute("aria-hidden", "true");
    for (const [part, data] of Object.entries(row.shapes)) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", data);
      path.setAttribute("fill-rule", "evenodd");
      path.setAttribute("class", `part-${part}`);
      path.dataset.part = part;
      svg.append(path);
    }
    return svg;
  };
  const who = (row) => (row.known ? row.identity : `unnamed ${row.identity.replace(/^unknown\//, "").slice(0, 8)}`);
  const withMasks = () => find("[name=masks]").checked;
  const card = (row, index) => {
    const item = make("li");
    const button = make("button");
    const view = make("span", "view");
    view.style.display = "block";
    view.append(picture(row, `Face of ${who(row)}`, true));
    if (withMasks()) view.append(shapes(row));
    button.append(view, make("span", "name", who(row)));
    button.append(make("span", "score", `${gender(row)}, ${Math.round(row.age)} · quality ${row.quality.toFixed(2)}`));
    button.addEventListener("click", () => open(index));
    item.append(button);
    return item;
  };
  const draw = () => {
    const until = Math.min(drawn + PAGE, shown.length);
    const items = [];
    for (; drawn < until; drawn += 1) items.push(card(shown[drawn], drawn));
    list.append(...items);
    find(".more").hidden = drawn >= shown.length;
  };

  // One face.
  const pick = (part) => {
    const view = one.querySelector(".view");
    const there = Boolean(part) && [...view.querySelectorAll("path")].some((path) => path.dataset.part === part);
    view.classList.toggle("picking", there);
    for (const path of view.querySelectorAll("path")) path.classList.toggle("picked", path.dataset.part === part);
    for (const item of one.querySelectorAll(".captions li")) item.classList.toggle("picked", item.dataset.part === part);
  };
  const marked = (caption) => {
    const text = make("span");
    let rest = caption.text;
    const claims = new Map();
    for (const [phrase, measure, value, confidence] of caption.evidence) {
      const claim = `${measure} = ${value} (${confidence.toFixed(2)})`;
      claims.set(phrase, claims.has(phrase) ? `${claims.get(phrase)}, ${claim}` : claim);
    }
    while (rest) {
      const next = [...claims.keys()]
        .map((phrase) => [rest.indexOf(phrase), phrase])
        .filter(([at]) => at >= 0)
        .sort((a, b) => a[0] - b[0] || b[1].length - a[1].length)[0];
      if (!next) break;
      const [at, phrase] = next;
      text.append(rest.slice(0, at));
      const mark = make("mark", "", phrase);
      mark.title = claims.get(phrase);
      text.append(mark);
      rest = rest.slice(at + phrase.length);
    }
    text.append(rest);
    return [text, [...claims].map(([phrase, claim]) => `“${phrase}”: ${claim}`)];
  };
  const told = (caption) => {
    const item = make("li", `part-${caption.part}`);
    item.dataset.part = caption.part;
    item.tabIndex = 0;
    const [text, claims] = marked(caption);
    item.append(make("span", "part", caption.part === "whole" ? "the whole person" : caption.part), text);
    if (claims.length) {
      const why = make("span", "claims", claims.join("; "));
      why.hidden = true;
      item.append(why);
      item.addEventListener("click", () => { why.hidden = !why.hidden; });
      item.addEventListener("keydown", (event) => { if (event.key === "Enter") why.hidden = !why.hidden; });
    }
    for (const [event, part] of [["mouseenter", caption.part], ["mouseleave", ""], ["focus", caption.part], ["blur", ""]]) {
      item.addEventListener(event, () => pick(part));
    }
    return item;
  };
  const facts = (row) => ({
    source: row.source,
    place: row.uri,
    licence: row.licence,
    identity: row.identity,
    split: row.split,
    age: `about ${row.age} years`,
    gender: `${gender(row)} (probability of a woman's face ${row.p_female})`,
    pose: `yaw ${row.yaw}°, pitch ${row.pitch}°`,
    quality: row.quality,
    tags: row.tags.join(", ") || "none",
    captioner: row.captioner ?? "none",
    row: row.id,
  });
  const show = (index) => {
    place = (index + shown.length) % shown.length;
    const row = shown[place];
    const view = one.querySelector(".view");
    const svg = shapes(row);
    view.replaceChildren(picture(row, `Face of ${who(row)}`, false), svg);
    for (const path of svg.children) {
      path.addEventListener("mouseenter", () => pick(path.dataset.part));
      path.addEventListener("mouseleave", () => pick(""));
    }
    const toggles = one.querySelector(".toggles");
    const off = new Set([...toggles.querySelectorAll("input:not(:checked)")].map((input) => input.value));
    toggles.replaceChildren(
      ...Object.keys(row.shapes).map((part) => {
        const label = make("label", `part-${part}`);
        const input = make("input");
        input.type = "checkbox";
        input.value = part;
        input.checked = !off.has(part);
        const toggle = () => svg.querySelector(`[data-part="${part}"]`).classList.toggle("off", !input.checked);
        input.addEventListener("change", toggle);
        toggle();
        label.append(input, ` ${part}`);
        return label;
      }),
    );
    one.querySelector("h2").textContent = who(row);
    one.querySelector(".told > .line").textContent = `${place + 1} of ${shown.length} · ${row.split} · ${row.source} · ${row.licence}`;
    one.querySelector(".captions").replaceChildren(...row.captions.map(told));
    one.querySelector("dl").replaceChildren(
      ...Object.entries(facts(row)).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]),
    );
    one.scrollTop = 0;
  };
  const open = (index) => {
    show(index);
    one.showModal();
  };

  // Labelling.
  const random = (seed) => () => {
    // mulberry32: the same seed, the same sample, in any browser
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const sample = (from, count, seed) => {
    const next = random(seed);
    const pool = [...from].sort(ORDERS[""]);
    const taken = [];
    while (pool.length && taken.length < count) taken.push(pool.splice(Math.floor(next() * pool.length), 1)[0]);
    return taken;
  };
  const rings = (data) =>
    data
      .split("M")
      .filter(Boolean)
      .map((ring) => ring.replace("Z", "").split("L").map((point) => point.split(" ").map(Number)));
  const task = (row, base) => ({
    data: { image: `${base}${FOLDER}${row.picture}`, row_id: row.id, source: row.source, licence: row.licence },
    predictions: [
      {
        model_version: "studiolo",
        result: Object.entries(row.shapes).flatMap(([part, data]) =>
          rings(data).map((ring, index) => ({
            id: `${part}-${index}`,
            from_name: "label",
            to_name: "image",
            type: "polygonlabels",
            original_width: row.side,
            original_height: row.side,
            value: {
              points: ring.map(([x, y]) => [(100 * x) / row.side, (100 * y) / row.side]),
              polygonlabels: [part],
            },
          })),
        ),
      },
    ],
  });
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const table = (taken) =>
    [
      ["row_id", "picture", "part", "x0", "y0", "x1", "y1"].join(","),
      ...taken.flatMap((row) =>
        Object.entries(row.parts).map(([part, box]) => [quoted(row.id), quoted(FOLDER + row.picture), part, ...box].join(",")),
      ),
    ].join("\n") + "\n";
  const save = (name, type, text) => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  labelling.addEventListener("close", () => {
    if (labelling.returnValue !== "save") return;
    const want = Object.fromEntries(new FormData(labelling.querySelector("form")));
    const taken = sample(shown, Number(want.count) || 1, Number(want.seed) || 0);
    if (want.form === "csv") save("labelling.csv", "text/csv", table(taken));
    else save("labelling.json", "application/json", JSON.stringify(taken.map((row) => task(row, want.base)), null, 1) + "\n");
  });

  // Wiring.
  filters.addEventListener("input", look);
  filters.addEventListener("reset", () => setTimeout(look));
  filters.addEventListener("submit", (event) => event.preventDefault());
  find("[name=masks]").addEventListener("change", look);
  find(".more button").addEventListener("click", draw);
  find(".export").addEventListener("click", () => {
    labelling.returnValue = "";
    labelling.showModal();
  });
  one.querySelector(".previous").addEventListener("click", () => show(place - 1));
  one.querySelector(".next").addEventListener("click", () => show(place + 1));
  one.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(place - 1);
    if (event.key === "ArrowRight") show(place + 1);
  });
  one.addEventListener("close", () => {
    while (drawn <= place && drawn < shown.length) draw();
    list.children[place]?.querySelector("button").focus();
  });
  addEventListener("DOMContentLoaded", () => {
    rows = chunks.flat();
    filters.hidden = find(".found").hidden = false;
    look();
  });

  return {
    rows: (number, some) => {
      chunks[number] = some;
    },
  };
})();
