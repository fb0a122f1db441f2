// Plays a client of the event bus with one of the JavaScript libraries and prints what it hears:
// node bus.js MODULE URL [TRANSPORT]   (SockJS libraries)
// node bus.js MODULE HOST PORT         (the TCP library)
'use strict';

const [path, where, how] = process.argv.slice(2);
const EventBus = require(path);
const isTcp = /tcp/.test(path);
// The libraries tell what no handler takes; errors without an address are looked at below.
console.warn = () => {};
console.error = () => {};

const bus = isTcp
  ? new EventBus(where, Number(how))
  : new EventBus(where, how ? { transports: [how] } : {});

const errors = [];
bus.onerror = (error) => errors.push(error.body || error.message);

const say = (...words) => console.log(words.map((it) => (typeof it === 'string' ? it : JSON.stringify(it))).join(' '));

function request(address, body, headers) {
  return new Promise((resolve) => {
    bus.send(address, body, headers || {}, (error, message) => {
      if (error) say(address, 'failed:', error.failureCode, error.failureType, error.message);
      resolve(message);
    });
  });
}

function until(condition) {
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (condition()) {
        clearInterval(timer);
        resolve();
      }
    }, 5);
  });
}

async function play() {
  const heard = [];
  const mine = (error, message) => {
    heard.push(message.body);
    if (message.reply) message.reply({ you: message.body }, { x: 'y' });
  };
  bus.registerHandler('test.mine', mine);
  bus.publish('test.mine', { n: 1 }, { k: 'v' });
  bus.send('test.mine', 'ä €');
  await until(() => heard.length === 2);
  say('heard', heard);
  const reply = await request('test.mine', [1, { a: null }]);
  say('reply', reply.body, reply.headers);
  const echo = await request('test.echo', { deep: { list: [1.5, true, 'x'] } }, { k: 'v' });
  say('echo', echo.body, echo.headers);
  const large = await request('test.echo', 'x'.repeat(100000));
  say('large', large.body.length);
  const all = await Promise.all([...Array(200).keys()].map((n) => request('test.echo', n)));
  say('many', all.every((message, n) => message.body === n));
  await request('test.fail', 1);
  await request('test.nobody', 1);
  await request('test.silent', 1, { timeout: 200 });

  let asked;
  bus.registerHandler('test.asked', (error, message) => (asked = message.body));
  const question = await request('test.ask', 1);
  say('question', question.body);
  question.reply('really');
  await until(() => asked);
  say('asked', asked);

  const ticks = [];
  bus.registerHandler('test.clock', (error, message) => ticks.push(message.body.number));
  await until(() => ticks.length === 3);
  say('clock', ticks.every((number, at) => number === ticks[0] + at));

  bus.unregisterHandler('test.mine', mine);
  await request('test.mine', 1);

  bus.send('secret', 1);
  bus.registerHandler('secret', () => say('not reached'));
  bus.send('test-strict', { ok: false });
  await until(() => errors.length === 3);
  say('refused', errors);
  process.exit(0);
}

bus.onopen = () => play();
setTimeout(() => {
  say('not done in time');
  process.exit(1);
}, 20000);
