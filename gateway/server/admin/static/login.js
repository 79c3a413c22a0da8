// Takes the token of a log-in link out of the address, where others might read it later, and offers to log in with it.
// It takes a person to press the button: a page that is fetched ahead, or only looked at, uses no link up.

import { $ } from "./dom.js";

function take() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  $("#token").value = token;
  $("#by-link").hidden = false;
  $("#hint").hidden = true;
  $("#by-link button").focus();
}

addEventListener("hashchange", take);
take();
