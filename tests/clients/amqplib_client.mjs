// What amqplib can do with a broker, in brief. Usage: node amqplib_client.mjs URL

import assert from 'node:assert/strict';
import { once } from 'node:events';
import amqp from 'amqplib';

const url = process.argv[2];
const exclusive = { exclusive: true };

// A connection with a channel that confirms.
async function open() {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  return { connection, channel };
}

async function queue(channel, options = {}) {
  return (await channel.assertQueue('', { ...exclusive, ...options })).queue;
}

// An exchange that goes with its last binding.
async function exchange(channel, kind, options = {}) {
  const name = `amqplib.${kind}.${process.pid}`;
  await channel.assertExchange(name, kind, { autoDelete: true, durable: false, ...options });
  return name;
}

async function publish(channel, exchange, key, body, options = {}) {
  channel.publish(exchange, key, Buffer.from(body), options);
  await channel.waitForConfirms();
}

// The deliveries of a queue, one after the other.
async function consume(channel, queue, options = {}) {
  const waiting = [];
  const came = [];
  const take = (message) => (waiting.length ? waiting.shift()(message) : came.push(message));
  const { consumerTag } = await channel.consume(queue, take, options);
  const next = () => (came.length ? came.shift() : new Promise((resolve) => waiting.push(resolve)));
  return { consumerTag, next };
}

async function drain(channel, queue) {
  const bodies = [];
  for (let got = await channel.get(queue, { noAck: true }); got; got = await channel.get(queue, { noAck: true })) {
    bodies.push(got.content.toString());
  }
  return bodies;
}

const cases = {
  async 'consumed and acknowledged messages are gone'({ channel }) {
    const name = await queue(channel);
    for (let number = 0; number < 20; number += 1) channel.sendToQueue(name, Buffer.from(`${number}`));
    await channel.waitForConfirms();
    const { consumerTag, next } = await consume(channel, name);
    for (let number = 0; number < 20; number += 1) {
      const message = await next();
      assert.equal(message.content.toString(), `${number}`);
      assert.equal(message.fields.redelivered, false);
      channel.ack(message);
    }
    await channel.cancel(consumerTag);
    await channel.recover();
    assert.deepEqual(await drain(channel, name), []);
  },

  async 'requeued messages come again and rejected ones do not'({ channel }) {
    const name = await queue(channel);
    await publish(channel, '', name, 'job');
    const { consumerTag, next } = await consume(channel, name);
    channel.nack(await next(), false, true);
    const again = await next();
    assert.equal(again.fields.redelivered, true);
    channel.reject(again, false);
    await channel.cancel(consumerTag);
    assert.deepEqual(await drain(channel, name), []);
  },

  async 'properties arrive as they were sent'({ channel }) {
    const name = await queue(channel);
    const headers = { text: 'höchst', number: -7, large: 2 ** 40, half: 0.5, flag: true, list: [1, 'two'], table: { inner: null } };
    const options = {
      contentType: 'application/json', contentEncoding: 'utf-8', headers, deliveryMode: 2, priority: 3,
      correlationId: 'c1', replyTo: 'answers', expiration: '60000', messageId: 'm1', timestamp: 1_700_000_000,
      type: 'order', userId: 'guest', appId: 'shop',
    };
    await publish(channel, '', name, 'x'.repeat(300_000), options);
    const message = await channel.get(name, { noAck: true });
    for (const [option, value] of Object.entries(options)) assert.deepEqual(message.properties[option], value, option);
    assert.equal(message.content.length, 300_000);
  },

  async 'what nobody gets is returned and what does not fit refused'({ channel }) {
    const returned = once(channel, 'return');
    await publish(channel, 'amq.topic', 'nobody.listens', 'lost', { mandatory: true });
    const [message] = await returned;
    assert.deepEqual([message.fields.replyCode, message.content.toString()], [312, 'lost']);
    const name = await queue(channel, { maxLength: 1, overflow: 'reject-publish', arguments: { 'x-overflow': 'reject-publish' } });
    await publish(channel, '', name, 'fits');
    await assert.rejects(publish(channel, '', name, 'does not'));
    assert.deepEqual(await drain(channel, name), ['fits']);
  },

  async 'rejected and expired messages are dead-lettered'({ channel }) {
    const dead = await queue(channel);
    const target = { deadLetterExchange: '', deadLetterRoutingKey: dead };
    const rejecting = await queue(channel, target);
    const expiring = await queue(channel, { ...target, messageTtl: 10 });
    const own = await queue(channel, target);
    const letters = await consume(channel, dead);
    await publish(channel, '', rejecting, 'rejected');
    channel.reject(await channel.get(rejecting), false);
    for (const [name, reason] of [[rejecting, 'rejected'], [expiring, 'expired'], [own, 'expired']]) {
      if (name !== rejecting) await publish(channel, '', name, reason, name === own ? { expiration: '10' } : {});
      const letter = await letters.next();
      const [death] = letter.properties.headers['x-death'];
      assert.deepEqual([letter.content.toString(), death.reason, death.queue, death.count], [reason, reason, name, 1]);
    }
  },

  async 'priorities, topics, headers and exchanges behind exchanges route'({ channel }) {
    const name = await queue(channel, { maxPriority: 9 });
    const topic = await exchange(channel, 'topic');
    const headers = await exchange(channel, 'headers');
    const outer = await exchange(channel, 'fanout');
    await channel.bindQueue(name, topic, 'a.*.#');
    await channel.bindQueue(name, headers, '', { 'x-match': 'all', kind: 'pdf' });
    await channel.bindExchange(topic, outer, '');
    await publish(channel, topic, 'a.low', 'low', { priority: 1 });
    await publish(channel, headers, '', 'high', { priority: 9, headers: { kind: 'pdf', pages: 2 } });
    await publish(channel, outer, 'a.b.c', 'middle', { priority: 5 });
    assert.deepEqual(await drain(channel, name), ['high', 'middle', 'low']);
  },

  async 'the prefetch limits what is on its way'({ channel }) {
    const name = await queue(channel);
    for (const body of ['1', '2', '3']) await publish(channel, '', name, body);
    await channel.prefetch(2);
    const { next } = await consume(channel, name);
    const first = await next();
    await next();
    assert.equal((await channel.checkQueue(name)).messageCount, 1);
    channel.ack(first);
    assert.equal((await next()).content.toString(), '3');
  },

  async 'a queue that is deleted cancels its consumers'({ connection, channel }) {
    const name = await queue(channel);
    const { next } = await consume(channel, name);
    await (await connection.createChannel()).deleteQueue(name);
    assert.equal(await next(), null);
  },

  async 'mistakes close the channel with the words of RabbitMQ'({ connection, channel }) {
    const error = once(channel, 'error');
    await assert.rejects(channel.checkQueue('not-there'));
    const [{ code, message }] = await error;
    assert.equal(code, 404);
    assert.match(message, /NOT_FOUND - no queue 'not-there' in vhost '\/'/);
    await connection.createChannel();
  },

  async 'a requester hears from who answers to its reply-to'({ channel }) {
    const name = await queue(channel);
    const replies = await consume(channel, 'amq.rabbitmq.reply-to', { noAck: true });
    await publish(channel, '', name, 'question', { replyTo: 'amq.rabbitmq.reply-to', correlationId: 'c1' });
    const question = await channel.get(name, { noAck: true });
    await publish(channel, '', question.properties.replyTo, 'answer', { correlationId: question.properties.correlationId });
    const reply = await replies.next();
    assert.deepEqual([reply.content.toString(), reply.properties.correlationId], ['answer', 'c1']);
  },

  async 'a wrong password is refused'() {
    const wrong = new URL(url);
    wrong.password = 'wrong';
    await assert.rejects(amqp.connect(wrong.href), /ACCESS[_-]REFUSED/);
  },
};

for (const [name, run] of Object.entries(cases)) {
  process.stdout.write(`${name} ... `);
  const session = await open();
  await run(session);
  await session.connection.close();
  console.log('ok');
}
