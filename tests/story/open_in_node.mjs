// Open a run file with h5wasm (npm), HDF5 in WebAssembly, which myHDF5 and h5web use:
//
//   NODE_PATH=FOLDER node open_in_node.mjs RUN DATASET...
//
// prints as JSON the path of the group that `default` leads to, its signal and axes, and each DATASET as {shape, values}.
// Exit status 77: FOLDER has no h5wasm.
import fs from "node:fs";
import path from "node:path";
import url from "node:url";

const library = path.join(process.env.NODE_PATH ?? "", "h5wasm", "dist", "node", "hdf5_hl.js");
if (!fs.existsSync(library)) process.exit(77);
const h5wasm = await import(url.pathToFileURL(library));
await h5wasm.ready;

const [run, ...names] = process.argv.slice(2);
const file = new h5wasm.File(run, "r");
let node = file.get("/");
const text = (name) => node.attrs[name]?.value;
while (text("default")) node = node.get(text("default"));
const shown = { path: node.path, class: text("NX_class"), signal: text("signal"), axes: text("axes") };

const plain = (value) => (typeof value === "bigint" ? Number(value) : value);
const datasets = {};
for (const name of names) {
  const dataset = file.get(name);
  datasets[name] = { shape: dataset.shape, values: Array.from(dataset.value, plain) };
}
console.log(JSON.stringify({ shown, datasets }));
file.close();
