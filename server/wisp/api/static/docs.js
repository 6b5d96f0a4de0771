"use strict";

// The viewer takes what follows # for an operation of its own, and what it draws moves the table of codes.
const row = document.getElementById(location.hash.slice(1));

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  validatorUrl: null, // or it would send the document to its makers' validator
  deepLinking: !row,
  docExpansion: "list",
  defaultModelsExpandDepth: 1,
  showExtensions: true,
  onComplete: () => requestAnimationFrame(() => row && row.scrollIntoView({ block: "center" })),
});
