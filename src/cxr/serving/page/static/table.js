/** The work list as a table for other programs (RFC 4180). Knows nothing of the page. */

const SPREADSHEET_FORMULA = /^[=+\-@\t\r]/;

/** CSV with a row per image, in the order of the list; numbers as the server gave them. */
export function toCsv(items) {
  const models = items.map((item) => item.model).filter((model) => model !== null);
  const names = [...new Set(models.flatMap((model) => model.class_names))];
  const rows = items.map((item) => toRow(item, names));
  const columns = rows.length > 0 ? Object.keys(rows[0]) : [];
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
  return lines.map((line) => line.map(quote).join(",") + "\r\n").join("");
}

function toRow({ name, state, result, model, problem, ticket }, names) {
  const each = (prefix, values) => names.map((one) => [`${prefix}_${one}`, values?.[one]]);
  return {
    file: name,
    status: state,
    most_probable: result?.label,
    abstained: result?.abstained,
    ...Object.fromEntries(each("prob", result?.probs)),
    ...Object.fromEntries(each("positive", result?.decisions)),
    warnings: result?.warnings.map((warning) => warning.code).join("; "),
    error: problem?.message,
    height: result?.shape[0],
    width: result?.shape[1],
    model: model?.name,
    version: model?.version,
    request_id: ticket ?? problem?.ticket,
  };
}

/** A field; a text that a spreadsheet would take for a formula gets an apostrophe in front. */
function quote(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && SPREADSHEET_FORMULA.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Let the browser save a text as a file. */
export function save(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
