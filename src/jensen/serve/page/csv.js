// Rows as CSV.

/** The cells of CSV text, a list for each row; the delimiter is the most frequent of comma, semicolon and tab. */
export function parse(text) {
  const first = text.slice(0, text.search(/\r?\n|$/));
  const many = (sign) => first.split(sign).length;
  const delimiter = [",", ";", "\t"].reduce((best, sign) => (many(sign) > many(best) ? sign : best));
  const rows = [[]];
  let cell = "";
  let quoted = false;
  for (let k = 0; k < text.length; k++) {
    const sign = text[k];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[k + 1] === '"') (cell += sign), k++;
      else quoted = false;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === delimiter) rows.at(-1).push(cell), (cell = "");
    else if (sign === "\n") rows.at(-1).push(cell.replace(/\r$/, "")), (cell = ""), rows.push([]);
    else cell += sign;
  }
  rows.at(-1).push(cell.replace(/\r$/, ""));
  return rows.filter((row) => row.length > 1 || row[0] !== "");
}
