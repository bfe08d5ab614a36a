"use strict";
(() => {
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // --- the table of cells: texts come as numbers of a list, for most come often
  const data = JSON.parse(document.getElementById("cells").textContent);
  const columns = data.columns.map((column, i) => ({ ...column, field: `c${i}` }));
  const rows = Array.from({ length: data.rows }, (_, i) =>
    Object.fromEntries(columns.map((column) => [column.field, column.texts[column.codes[i]]])));

  // empty cells come last in both directions
  const byNumber = (a, b, first, second, column, direction) => {
    const [x, y] = [parseFloat(a), parseFloat(b)];
    const last = direction === "asc" ? 1 : -1;
    if (isNaN(x) || isNaN(y)) return isNaN(x) && isNaN(y) ? 0 : isNaN(x) ? last : -last;
    return x - y;
  };
  const byText = new Intl.Collator("en", { numeric: true }).compare;
  const condition = /^\s*(<=|>=|<|>|=)\s*([-+.\deE]+)\s*$/;
  const within = (asked, text) => {
    const found = condition.exec(asked);
    if (!found) return text.startsWith(asked.trim());
    const [x, y] = [parseFloat(text), parseFloat(found[2])];
    if (isNaN(x) || isNaN(y)) return false;
    return { "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y, "=": x === y }[found[1]];
  };

  if (rows.length) {
    const form = document.getElementById("filters");
    const count = document.getElementById("count");
    const chosen = new Map();
    const table = new Tabulator("#table", {
      data: rows,
      layout: "fitDataFill",
      renderVertical: "basic",
      pagination: true,
      paginationSize: 25,
      paginationSizeSelector: [10, 25, 100, 500],
      paginationButtonCount: 3,
      placeholder: "No row matches.",
      columnDefaults: { resizable: false, formatter: "plaintext" },
      columns: columns.map((column) => ({
        title: "",
        field: column.field,
        titleFormatter: () => element("span", column.title, column.note ? { title: column.note } : {}),
        hozAlign: column.number ? "right" : "left",
        sorter: column.number ? byNumber : (a, b) => byText(a, b),
        ...(column.number && {
          minWidth: 84,
          headerFilter: "input",
          headerFilterPlaceholder: "< > =",
          headerFilterFunc: within,
        }),
      })),
    });
    const said = () => {
      const kept = table.getDataCount("active");
      count.textContent = `${kept.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    };
    table.on("tableBuilt", () => {
      for (const [i, column] of table.getColumns().entries()) {
        const head = column.getElement();
        head.tabIndex = 0;
        head.setAttribute("aria-label", columns[i].title);
        head.addEventListener("keydown", (event) => {
          if (event.target === head && (event.key === "Enter" || event.key === " ")) {
            event.preventDefault();
            head.click();
          }
        });
        const field = head.querySelector("input");
        if (field) field.setAttribute("aria-label", `filter ${columns[i].title}`);
      }
      said();
      document.body.dataset.table = "ready";
    });
    table.on("dataFiltered", (_, kept) => {
      count.textContent = `${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    });
    const keep = () => table.setFilter((row) => [...chosen].every(([field, text]) => row[field] === text));
    for (const column of columns) {
      if (column.number || column.texts.length < 2 || column.texts.length > 300) continue;
      const label = element("label", column.title);
      const select = element("select", undefined, { name: column.field });
      select.append(element("option", "all", { value: "" }));
      for (const [i, text] of [...column.texts.entries()].sort((a, b) => byText(a[1], b[1])))
        select.append(element("option", text || "(empty)", { value: String(i) }));
      select.addEventListener("change", () => {
        if (select.value === "") chosen.delete(column.field);
        else chosen.set(column.field, column.texts[Number(select.value)]);
        keep();
      });
      label.append(select);
      form.append(label);
    }
    const reset = element("button", "Clear filters", { type: "reset" });
    form.addEventListener("reset", () => { chosen.clear(); table.clearHeaderFilter(); keep(); });
    const save = element("button", "Save rows as CSV", { type: "button" });
    save.addEventListener("click", () => {
      const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
      const lines = [columns.map((column) => column.title), ...table.getData("active").map((row) =>
        columns.map((column) => row[column.field]))];
      const text = lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
      const link = element("a", "", { download: "cells.csv" });
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.click();
      URL.revokeObjectURL(link.href);
    });
    form.append(reset, save);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  } else {
    document.body.dataset.table = "ready";
  }

  // --- figures enlarged
  const dialog = document.getElementById("zoomed");
  const large = dialog.querySelector("img");
  const zooms = [...document.querySelectorAll(".zoom")];
  let shown = 0;
  const show = (i) => {
    shown = (i + zooms.length) % zooms.length;
    const image = zooms[shown].querySelector("img");
    large.className = "";
    large.src = image.src;
    large.alt = image.alt;
    document.getElementById("zoomed-name").textContent = zooms[shown].getAttribute("aria-label").replace("Enlarge ", "");
    if (!dialog.open) dialog.showModal();
  };
  zooms.forEach((button, i) => button.addEventListener("click", () => show(i)));
  large.addEventListener("click", () => large.classList.toggle("full"));
  dialog.querySelector("[value=previous]").addEventListener("click", () => show(shown - 1));
  dialog.querySelector("[value=next]").addEventListener("click", () => show(shown + 1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(shown - 1);
    if (event.key === "ArrowRight") show(shown + 1);
  });
  dialog.addEventListener("close", () => zooms[shown].focus());

  // --- what a mark stands for
  const tip = document.getElementById("tip");
  const point = (event) => {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${event.clientY > height + 20 ? event.clientY - height - 12 : event.clientY + 18}px`;
  };
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);

  // --- code copied
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {  // not allowed here: what is selected can be copied by hand
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
