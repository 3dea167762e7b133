/**
 * The API page: what programs can ask, read from the server's own OpenAPI document.
 * @module apipage
 */

import { get } from "/static/api.js";
import { fill, make } from "/static/elements.js";
import { failed, waiting } from "/static/notices.js";

const METHODS = ["get", "post", "put", "delete"];
const DEEPEST = 4;

const place = /** @type {HTMLElement} */ (document.getElementById("operations"));

window.addEventListener("loggedout", () => location.assign("/login.html"));

/** Show all operations. */
async function show() {
  fill(place, waiting("fetching the description"));
  try {
    const described = await get("/openapi.json");
    const schemas = described.components?.schemas ?? {};
    const operations = Object.entries(described.paths ?? {}).flatMap(([path, methods]) =>
      METHODS.filter((method) => methods[method]).map((method) => ({ path, method, ...methods[method] })));
    fill(place, make("p.dim", {}, `${described.info?.title ?? ""} ${described.info?.version ?? ""}`),
      operations.map((operation) => section(operation, schemas)));
  } catch (error) {
    fill(place, failed(error, show));
  }
}

/**
 * @param {any} operation
 * @param {Object<string, any>} schemas
 */
function section(operation, schemas) {
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const parameters = operation.parameters ?? [];
  return make("details.operation", {},
    make("summary", {}, make("b.method", {}, operation.method.toUpperCase()), make("code", {}, operation.path),
      make("span.dim", {}, operation.description ?? operation.summary ?? "")),
    parameters.length ? make("table", {},
      make("caption", {}, "Parameters"),
      make("tbody", {}, parameters.map((one) => make("tr", {},
        make("th", { scope: "row" }, make("code", {}, one.name)), make("td", {}, one.in), make("td", {}, typeOf(one.schema, schemas)),
        make("td", {}, one.required ? "required" : ""), make("td", {}, one.description ?? ""))))) : null,
    body ? [make("h3", {}, "Body"), make("pre", { tabIndex: 0 }, shape(body, schemas, 0))] : null,
    make("p.dim", {}, `Answers: ${Object.keys(operation.responses ?? {}).join(", ")}`));
}

/**
 * A schema in short.
 * @param {any} schema
 * @param {Object<string, any>} schemas
 * @returns {string}
 */
function typeOf(schema, schemas) {
  const found = resolve(schema, schemas);
  if (found.anyOf) return found.anyOf.map((one) => typeOf(one, schemas)).join(" or ");
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (found.type === "array") return found.items ? `[${typeOf(found.items, schemas)}]` : "array";
  return found.type ?? found.title ?? "any";
}

/**
 * A schema as JSON would look.
 * @param {any} schema
 * @param {Object<string, any>} schemas
 * @param {number} depth
 * @returns {string}
 */
function shape(schema, schemas, depth) {
  const found = resolve(schema, schemas);
  const properties = Object.entries(found.properties ?? {});
  if (!properties.length || depth >= DEEPEST) return typeOf(found, schemas);
  const indent = "  ".repeat(depth);
  const lines = properties.map(([name, one]) => `${indent}  "${name}": ${nested(one, schemas, depth + 1)}`);
  return `{\n${lines.join(",\n")}\n${indent}}`;
}

/**
 * @param {any} schema
 * @param {Object<string, any>} schemas
 * @param {number} depth
 */
function nested(schema, schemas, depth) {
  const found = resolve(schema, schemas);
  if (found.anyOf) return found.anyOf.map((one) => shape(one, schemas, depth)).join(" or ");
  if (found.type === "array" && found.items) return `[${shape(found.items, schemas, depth)}]`;
  return shape(found, schemas, depth);
}

/**
 * @param {any} schema
 * @param {Object<string, any>} schemas
 */
function resolve(schema, schemas) {
  const name = schema?.$ref?.split("/").at(-1);
  return (name ? schemas[name] : schema) ?? {};
}

show();
