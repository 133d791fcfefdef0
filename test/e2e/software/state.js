// Timers and heap: an interval ticks, a second one sums a Map up, and a chain of promises
// keeps the thread pool at work, whose results must never change. What it finds goes to a
// witness, tick by tick.
const crypto = require('node:crypto');
const dgram = require('node:dgram');
const { promisify } = require('node:util');

const heap = new Map();
for (let i = 0; i < 128; i++) heap.set(`chunk ${i}`, crypto.randomBytes(65536));

function checksum() {
  const sum = crypto.createHash('sha1');
  for (const [key, value] of heap) sum.update(key).update(value);
  return sum.digest().readUIntBE(0, 6);
}

const start = checksum();
let now = start;
setInterval(() => { now = checksum(); }, 200);

const derive = promisify(crypto.pbkdf2);
async function keepThreadsBusy() {
  const first = await derive('word', 'salt', 1000, 32, 'sha256');
  for (;;) {
    const again = await derive('word', 'salt', 1000, 32, 'sha256');
    if (!first.equals(again)) throw new Error('the thread pool gave another result');
    await new Promise((done) => setTimeout(done, 50));
  }
}
keepThreadsBusy();

const [host, port] = process.env.WITNESS.split(':');
const instance = `${process.env.INSTANCE}-${crypto.randomBytes(4).toString('hex')}`;
const out = dgram.createSocket('udp4');
let seq = 0;
setInterval(() => out.send(JSON.stringify({ instance, seq: ++seq, start, now }), Number(port), host), 20);
