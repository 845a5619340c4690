// The JavaScript SDK, unmodified, against the address in BASE_URL; prints what it saw as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "hello there" }];
const whole = await client.chat.completions.create({ model: "gpt-4o", messages, max_tokens: 8 });
const stream = await client.chat.completions.create({
  model: "gpt-4o", messages, max_tokens: 8, stream: true, stream_options: { include_usage: true },
});
let finish = null;
let usage = 0;
for await (const chunk of stream) {
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage?.completion_tokens ?? usage;
}
const vectors = await client.embeddings.create({ model: "vectors", input: "hello" });
const missing = await client.chat.completions.create({ model: "nothing", messages }).catch((error) => error.status);
console.log(JSON.stringify({ whole: whole.model, finish, usage, vector: vectors.data[0].embedding.length, missing }));
