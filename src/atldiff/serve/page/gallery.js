// Examples to begin with: a face, something to say, and how to say it.

import { getLimits } from "./api.js";
import { find } from "./page.js";

const EXAMPLES = [
  { title: "Good news", emotion: "happy", intensity: 0.8, text: "We did it! All of us, together. I can hardly believe it." },
  { title: "Bad news", emotion: "sad", intensity: 0.8, text: "I am sorry. It did not go as we had hoped." },
  { title: "A surprise", emotion: "surprised", intensity: 1, text: "Is that for me? You really should not have." },
  { title: "A complaint", emotion: "angry", intensity: 0.8, text: "No. I have told you twice, and I will not say it again." },
];

/** Fill the gallery; `choose` is called with an example, whose text is "" where nothing here can say it. */
export function showGallery(choose) {
  find("gallery").replaceChildren(...EXAMPLES.map((example) => card(example, choose)));
}

function card(example, choose) {
  const button = document.createElement("button");
  button.type = "button";
  const look = document.createElement("i");
  look.className = `look ${example.emotion}`;
  button.append(look, example.title);
  button.addEventListener("click", async () => choose({ ...example, text: (await hasVoice()) ? example.text : "" }));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

async function hasVoice() {
  try {
    return (await getLimits()).voices.length > 0;
  } catch {
    return false; // the service says why when something is sent
  }
}
