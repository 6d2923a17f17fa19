// A browser or a server runs the export like this, token by token: onnxruntime-node (npm).
//
//   node export_onnx.js FILE <REQUEST >ANSWER
//
// REQUEST {"tokens": [...], "prime": [...], "length": n, "first": v}: the logits after each of the tokens, from zeros;
// then, from zeros again, behind the prime n tokens, each the likeliest from index v on. ANSWER {"logits", "greedy"}.
const fs = require("fs");
const ort = require("onnxruntime-node");

async function main() {
  const request = JSON.parse(fs.readFileSync(0));
  const session = await ort.InferenceSession.create(process.argv[2]);
  const [layers, hidden] = process.argv.slice(3).map(Number);
  const names = session.inputNames.filter((name) => name !== "tokens");
  let state;
  const begin = () => {
    state = names.map(() => new ort.Tensor("float32", new Float32Array(layers * hidden), [layers, 1, hidden]));
  };
  const step = async (token) => {
    const feeds = { tokens: new ort.Tensor("int64", [BigInt(token)], [1, 1]) };
    names.forEach((name, i) => (feeds[name] = state[i]));
    const out = await session.run(feeds);
    state = names.map((name) => out[name + "_next"]);
    return Array.from(out.logits.data);
  };

  const logits = [];
  begin();
  for (const token of request.tokens) logits.push(await step(token));
  const greedy = [];
  let last;
  begin();
  for (const token of request.prime) last = await step(token);
  while (greedy.length < request.length) {
    let best = request.first;
    for (let v = best; v < last.length; ++v) if (last[v] > last[best]) best = v;
    greedy.push(best);
    last = await step(best);
  }
  console.log(JSON.stringify({ logits, greedy }));
}

main();
