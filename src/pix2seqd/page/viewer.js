// Draws an image with its segments, names the segment under the pointer, and reports strokes of the tools.
// Gradio provides `element`, `props`, `trigger` and `watch`. `show` in viewer.py makes the value.
const find = (selector) => element.querySelector(selector);
const editable = Boolean(find(".editable"));
let rows = null; // for each displayed pixel the row in value.segments, counted from 1; 0 = void
let shown = { width: 0, height: 0 };
let tool = editable ? "select" : "look";
let points = null; // the current stroke, in pixels of the image
let drawing = 0;

const load = async (uri) => {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
};

function paint(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context;
}

async function draw() {
  const turn = ++drawing;
  const value = props.value;
  find(".empty").style.display = value ? "none" : "";
  find(".stage").style.display = value ? "" : "none";
  find(".note").textContent = value ? value.note : "";
  const share = value ? value.progress : 0;
  find(".progress div").style.width = share < 1 ? `${100 * share}%` : "0";
  mark();
  if (!value) return;
  const [image, ids] = await Promise.all([load(value.image), load(value.ids)]);
  if (turn !== drawing) return; // a newer value has arrived
  paint(find(".image"), image);
  const context = paint(find(".mask"), ids);
  shown = { width: ids.width, height: ids.height };
  const data = context.getImageData(0, 0, ids.width, ids.height).data;
  rows = new Uint16Array(ids.width * ids.height);
  for (let i = 0; i < rows.length; i++) rows[i] = data[4 * i] + 256 * data[4 * i + 1];
  clear();
  colour();
  fit();
}

function colour() {
  const value = props.value;
  if (!value || !rows) return;
  const { width, height } = shown;
  const alpha = Number(find(".alpha").value) / 100;
  const context = find(".mask").getContext("2d");
  const image = context.createImageData(width, height);
  const outline = Math.max(1, Math.round(Math.min(width, height) / 400));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const segment = rows[i] && value.segments[rows[i] - 1];
      if (!segment) continue;
      let [r, g, b] = segment.color;
      let opacity = alpha * (segment.isthing ? 1 : 0.6);
      const reach = segment.selected ? 2 * outline : outline;
      const edge =
        (x >= reach && rows[i - reach] !== rows[i]) || (x + reach < width && rows[i + reach] !== rows[i]) ||
        (y >= reach && rows[i - reach * width] !== rows[i]) || (y + reach < height && rows[i + reach * width] !== rows[i]);
      if (edge && segment.selected) [r, g, b, opacity] = [255, 255, 255, 1];
      else if (edge && segment.kept) [r, g, b, opacity] = [80, 255, 120, 1];
      else if (edge && segment.isthing) [r, g, b, opacity] = [r * 0.65 + 89, g * 0.65 + 89, b * 0.65 + 89, Math.min(1, 1.8 * alpha)];
      image.data.set([r, g, b, 255 * opacity], 4 * i);
    }
  }
  context.putImageData(image, 0, 0);
}

function fit() {
  if (!props.value) return;
  const [width, height] = props.value.size;
  const stage = find(".stage");
  const zoom = Number(find(".zoom").value);
  // At zoom 1 the whole image is visible, even if it is tall.
  stage.style.width = `calc(min(100%, ${(72 * width) / height}vh) * ${zoom})`;
  stage.style.aspectRatio = `${width} / ${height}`;
}

function mark() {
  for (const button of element.querySelectorAll(".tools button")) {
    button.classList.toggle("on", button.dataset.tool === tool);
    button.setAttribute("aria-pressed", button.dataset.tool === tool);
  }
  // A finger scrolls the page, except while it draws.
  find(".stage").style.touchAction = ["paint", "erase", "cut"].includes(tool) ? "none" : "auto";
  find(".stage").style.cursor = tool === "look" ? "default" : "crosshair";
}

function place(event) {
  const box = find(".ink").getBoundingClientRect();
  const [width, height] = props.value.size;
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
}

function under([x, y]) {
  const [width, height] = props.value.size;
  if (!rows || x < 0 || y < 0 || x >= width || y >= height) return null;
  const column = Math.floor((x / width) * shown.width), line = Math.floor((y / height) * shown.height);
  return props.value.segments[rows[line * shown.width + column] - 1] || null;
}

function showTip(event) {
  const segment = props.value && under(place(event));
  const tip = find(".tip");
  tip.hidden = !segment;
  if (!segment) return;
  tip.textContent = `${segment.name} · id ${segment.id} · ${segment.area} px` + (segment.kept ? " · kept" : "");
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 6);
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(4, event.clientY - 34)}px`;
}

const radius = () => (tool === "cut" ? 0 : Number(find(".radius").value));

function clear() {
  const canvas = find(".ink");
  canvas.width = shown.width;
  canvas.height = shown.height;
}

function ink() {
  const canvas = find(".ink");
  const context = canvas.getContext("2d");
  const scale = shown.width / props.value.size[0];
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = tool === "erase" ? "#000b" : tool === "cut" ? "#ff3355" : "#ffffffb0";
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = Math.max(1, (2 * radius() + 1) * scale);
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x * scale, y * scale);
  if (points.length === 1) context.lineTo(points[0][0] * scale + 0.01, points[0][1] * scale);
  context.stroke();
}

element.addEventListener("pointerdown", (event) => {
  if (!editable || !props.value || event.button !== 0 || !event.target.closest(".stage")) return;
  points = [place(event)];
  if (tool !== "select") {
    find(".ink").setPointerCapture(event.pointerId);
    ink();
  }
});
element.addEventListener("pointermove", (event) => {
  if (!event.target.closest(".stage")) return void (find(".tip").hidden = true);
  if (points && tool !== "select") {
    points.push(place(event));
    ink();
  } else showTip(event);
});
element.addEventListener("pointerup", (event) => {
  if (event.target.closest(".stage")) showTip(event); // a finger has no hover
  const adds = event.shiftKey || event.ctrlKey || event.metaKey || event.pointerType === "touch"; // a finger has no Shift
  if (points) trigger("edit", { tool: tool === "select" && adds ? "add" : tool, points, radius: radius() });
  points = null;
});
element.addEventListener("pointercancel", () => { points = null; clear(); });
element.addEventListener("pointerleave", () => { find(".tip").hidden = true; });
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-tool]");
  if (button) tool = button.dataset.tool;
  mark();
});
element.addEventListener("input", (event) => {
  if (event.target.classList.contains("alpha")) colour();
  if (event.target.classList.contains("zoom")) fit();
});
watch("value", draw);
draw();
