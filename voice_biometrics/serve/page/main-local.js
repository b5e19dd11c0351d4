import { start } from "./app.js";
import { LocalBackend } from "./backend-local.js";
import { load } from "./browser.js";

start(new LocalBackend(load));
