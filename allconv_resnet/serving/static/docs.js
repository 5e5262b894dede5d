"use strict";
// Swagger UI over this server's openapi.json. Its validator, which is another host, stays off.
window.ui = SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null, deepLinking: true });
