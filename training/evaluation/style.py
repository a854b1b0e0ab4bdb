"""The look of the report: light and dark, readable without a network, and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --panel: #f5f7fa; --text: #1d2530; --muted: #5b6675; --line: #dde2e9; --accent: #0b6e99;
  --good: #0a7d5a; --bad: #b3261e; --warn-ground: #fff5e0; --warn: #7a4a00;
  --series-1: #0b6e99; --series-2: #d1495b; --series-3: #6a4c93; --series-4: #2a9d6f; --series-5: #c77700;
  --series-6: #5b6675;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --panel: #1b212a; --text: #e4e9f0; --muted: #98a4b3; --line: #303947; --accent: #5ab8e0;
    --good: #4ccb9f; --bad: #ff8f85; --warn-ground: #3a2c10; --warn: #ffd48a;
    --series-1: #5ab8e0; --series-2: #f0808f; --series-3: #b799e0; --series-4: #5fd0a2; --series-5: #f0b050;
    --series-6: #98a4b3;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1180px; padding: 32px 28px 80px; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 44px 0 6px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 6px 0 12px; max-width: 78ch; }
.muted, .note { color: var(--muted); }
.note { font-size: 13.5px; }
.warning {
  background: var(--warn-ground); color: var(--warn); padding: 9px 14px; border-radius: 8px; margin: 10px 0;
  max-width: none;
}
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 4px; }
.card {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; flex: 1 1 210px;
  max-width: 380px;
}
.card b { display: block; font-size: 14px; overflow-wrap: anywhere; }
.card .big { font-size: 27px; font-weight: 650; font-variant-numeric: tabular-nums; }
.card .note { display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 8px 0 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); font-size: 13px; color: var(--muted); vertical-align: bottom; }
tbody th { font-weight: 550; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
td .range { color: var(--muted); font-size: 12.5px; margin-left: 6px; }
td.best .value { color: var(--good); font-weight: 700; }
td.worse .value { color: var(--bad); font-weight: 700; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 18px 36px;
  max-width: 1060px;
}
.chart { margin: 0; }
.chart svg { width: 100%; height: auto; display: block; }
.chart figcaption { font-weight: 600; font-size: 14px; margin: 8px 0 4px; }
.grid { stroke: var(--line); stroke-width: 1; }
.tick { fill: var(--muted); font-size: 11px; }
.axis { fill: var(--muted); font-size: 12px; }
.legend {
  display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0; margin: 10px 0 4px; font-size: 13.5px;
}
.legend svg { margin-right: 7px; vertical-align: 1px; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; vertical-align: -1px; }
.photo {
  border: 1px solid var(--line); border-radius: 10px; padding: 10px 12px 12px; margin: 12px 0; background: var(--panel);
}
.photo h4 { margin: 0 0 8px; font-size: 14px; font-weight: 600; overflow-wrap: anywhere; }
.photo h4 .note { font-weight: 400; margin-left: 8px; }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 10px; }
.tiles figure { margin: 0; position: relative; }
.tiles img { width: 100%; height: auto; display: block; border-radius: 6px; background: #000; }
.tiles figcaption { font-size: 12.5px; color: var(--muted); margin-top: 3px; overflow-wrap: anywhere; }
.box { position: absolute; border: 2px solid #ffb000; border-radius: 3px; box-shadow: 0 0 0 1px rgb(0 0 0 / 60%); }
.frame { position: relative; }
.confusion td { text-align: right; padding: 4px 8px; border: 1px solid var(--line); }
.confusion th { font-size: 12px; padding: 4px 8px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; font-size: 13.5px; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 12.5px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
@media (max-width: 720px) {
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  body { padding: 18px 14px 60px; }
}
@media print { body { max-width: none; } .photo { break-inside: avoid; } }
"""
