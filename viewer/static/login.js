/**
 * The login: a token for a session, and back to where the reader was. It imports nothing: before the login the server
 * answers with this one page, whole.
 * @module login
 */

const form = /** @type {HTMLFormElement} */ (document.getElementById("login"));
const token = /** @type {HTMLInputElement} */ (document.getElementById("token"));
const says = /** @type {HTMLElement} */ (document.getElementById("says"));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  say("Logging in …", false);
  const refusal = await login(token.value.trim());
  if (refusal === null) {
    goOn();
    return;
  }
  say(refusal, true);
  token.setAttribute("aria-invalid", "true");
  token.focus();
});

/**
 * @param {string} said
 * @returns {Promise<string|null>} Why not, as a sentence; null once logged in.
 */
async function login(said) {
  let response;
  try {
    response = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Mammoseek": "1" },
      body: JSON.stringify({ token: said }),
    });
  } catch {
    return "The server does not answer; check that it runs, then try again.";
  }
  if (response.ok) return null;
  try {
    const { subject, cause, remedy } = (await response.json()).error;
    return `${subject[0].toUpperCase()}${subject.slice(1)}: ${cause}${remedy ? `; ${remedy}` : ""}.`;
  } catch {
    return `The server answered ${response.status}; try again.`;
  }
}

/**
 * @param {string} text
 * @param {boolean} failed
 */
function say(text, failed) {
  says.textContent = text;
  says.classList.toggle("failed", failed);
}

/** Go where the reader wanted to: this address itself, where the server answered with the login in its place. */
function goOn() {
  if (location.pathname === "/login.html") location.replace(`/${wanted()}`);
  else location.reload();
}

/** Where the reader was: a fragment of our own page, and nothing else. */
function wanted() {
  try {
    const hash = decodeURIComponent(location.hash.slice(1));
    return hash.startsWith("#/") ? hash : "";
  } catch {
    return "";
  }
}
