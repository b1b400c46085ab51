// Tables of numbers are sorted by a click on a column's head: rows within their group, what has no number last.
"use strict";

function value(row, column) {
  const text = row.cells[column].textContent.replaceAll("−", "-").trim();
  const number = /^[+-]?[\d,.]+/.exec(text);
  return number ? parseFloat(number[0].replaceAll(",", "")) : column === 0 ? text : NaN;
}

function compare(first, second) {
  return typeof first === "string" || typeof second === "string" ? String(first).localeCompare(String(second)) : first - second;
}

function sort(head, column) {
  const largest = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", largest ? "descending" : "ascending");
  for (const body of head.closest("table").tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const values = new Map(rows.map((row) => [row, value(row, column)]));
    const missing = (row) => Number.isNaN(values.get(row));
    rows.sort((a, b) => missing(a) - missing(b) || (largest ? -1 : 1) * compare(values.get(a), values.get(b)) || 0);
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table.numbers")) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "Sort by this column";
    button.addEventListener("click", () => sort(head, column));
    head.append(button);
  }
}
