// The server's HTTP interface. Every failure becomes an ApiError with one line for people.

export class ApiError extends Error {
  constructor(message, status, setting = null) {
    super(message);
    this.status = status;
    this.setting = setting;
  }
}

let onReach = () => {};

// Calls back with true after an answer and with false when the server is not reached.
export function watchConnection(callback) {
  onReach = callback;
}

async function failure(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // Not the server's own words: say what is known.
  }
  if (response.status === 401) return new ApiError("Open the link that the terminal shows.", 401);
  const text = typeof told.error === "string" ? told.error : `The server answered ${response.status}.`;
  return new ApiError(text, response.status, told.setting ?? null);
}

async function request(method, path, { json, body, signal } = {}) {
  const options = { method, signal, body, headers: {} };
  if (json !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(json);
  }
  let response;
  try {
    response = await fetch(`/api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    onReach(false);
    throw new ApiError("The studio does not answer.", 0);
  }
  onReach(![401, 502, 503, 504].includes(response.status), response.status);
  if (!response.ok) throw await failure(response);
  return response;
}

const read = async (method, path, options) => (await request(method, path, options)).json();

export const settings = () => read("GET", "settings");
export const me = () => read("GET", "me");
export const demo = () => read("POST", "demo");

export function upload(file, kind = "picture", name = file.name) {
  const form = new FormData();
  form.append("file", file, name || "pasted.png");
  form.append("kind", kind);
  return read("POST", "pictures", { body: form });
}
export const pictures = async () => (await read("GET", "pictures")).pictures;
export const picture = (id) => read("GET", `pictures/${id}`);
export const removePicture = (id) => request("DELETE", `pictures/${id}`);
export const preview = (id) => `/api/pictures/${id}/preview`;

export const plan = (setup, signal) => read("POST", "plan", { json: setup, signal });
export const startJob = (setup) => read("POST", "jobs", { json: setup });
export const jobsText = async () => (await request("GET", "jobs")).text();
export const trace = (id, start) => read("GET", `jobs/${id}/trace?start=${start}`);
export const act = (id, verb) => read("POST", `jobs/${id}/${verb}`);
export const change = (id, patch) => read("PATCH", `jobs/${id}`, { json: patch });
export const removeJob = (id) => request("DELETE", `jobs/${id}`);

export const live = (job) => `/api/jobs/${job.id}/live?frame=${job.frame}`;
export const result = (job, format = "png") => `/api/jobs/${job.id}/result?format=${format}`;
export const download = (job, format) => `${result(job, format)}&download=1`;
export const settingsFile = (job) => `/api/jobs/${job.id}/settings.toml`;
export const thumbnail = (job) => `/api/jobs/${job.id}/thumbnail?v=${job.has_result ? "end" : Math.ceil(job.frame / 8)}`;
