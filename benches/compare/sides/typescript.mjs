// The side that uses the TypeScript client's handles, in promises. measure.py describes the arguments.
import { readFileSync } from "node:fs";
import { DistributedLock } from "dflockd-client";

// After this many seconds, the warm-up no longer waits until there are as many pairs as workers.
const LONGEST_WARM_UP = 5;
const PAUSE_MS = 20;

const [host, port, keys, prefix, ...numbers] = process.argv.slice(2);
const [workers, warm, seconds] = numbers.map(Number);
// The client's package does not export its manifest, so the manifest is read by its path.
const manifest = new URL("../package.json", import.meta.resolve("dflockd-client"));
const { version } = JSON.parse(readFileSync(manifest, "utf8"));
let pairs = 0;

function fail(error) {
  console.error(error);
  process.exit(1);
}

async function work(worker) {
  const key = `${prefix}/${keys === "own" ? worker : "one"}`;
  const lock = new DistributedLock({ key, servers: [[host, Number(port)]] });
  for (;;) {
    await lock.withLock(() => {});
    pairs += 1;
  }
}

const now = () => performance.now() / 1000;
const started = now();
let began;
let before;
for (let worker = 0; worker < workers; worker += 1) {
  work(worker).catch(fail);
}
setInterval(() => {
  if (began === undefined) {
    const warmed = now() - started;
    if (warmed >= warm && (pairs >= workers || warmed >= LONGEST_WARM_UP)) {
      began = now();
      before = pairs;
    }
  } else if (now() - began >= seconds) {
    const result = { version: `${version}, Node ${process.versions.node}`, pairs: pairs - before, seconds: now() - began };
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
  }
}, PAUSE_MS);
