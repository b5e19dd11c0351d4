import { start } from "./app.js";
import { HttpBackend } from "./backend-http.js";

start(new HttpBackend());
