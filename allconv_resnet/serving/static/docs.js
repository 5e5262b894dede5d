"use strict";
// Swagger UI over this server's openapi.json. Its validator, which is another host, stays off.

let key = "";

async function show() {
  const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});
  let answer = await fetch("openapi.json");
  while (answer.status === 401 && (key = prompt("API key of this server"))) {
    answer = await fetch("openapi.json", { headers: headers() });
  }
  const authorized = (request) => ({ ...request, headers: { ...request.headers, ...headers() } });
  SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#swagger-ui",
    validatorUrl: null,
    deepLinking: true,
    requestInterceptor: authorized,
  });
}

document.addEventListener("DOMContentLoaded", show);
