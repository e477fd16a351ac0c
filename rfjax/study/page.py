"""How the report looks."""

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #e3e7ec; --blue: #2563a8; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
       max-width: 1320px; margin: 2.2rem auto 4rem; padding: 0 1.4rem; background: #fff; }
h1 { font-size: 1.75rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
.sub, .note { color: var(--soft); } .note { font-size: .86rem; } .sub { margin: .2rem 0 1.2rem; }
.verdict { border-left: 5px solid var(--soft); background: #f6f8fa; padding: .7rem 1.1rem; }
.verdict.good { border-color: #2c8a4b; background: #f0f9f3; }
.verdict.bad { border-color: #c2412d; background: #fdf3f1; }
.verdict p { margin: .25rem 0; } .law { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .92rem; }
.warn li { margin: .2rem 0; } .warn { color: #7a4b00; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 1.4rem;
           margin-top: 1.8rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }
figcaption { font-weight: 600; margin-bottom: .3rem; } figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .32rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td img { width: 64px; height: 64px; object-fit: contain; image-rendering: pixelated; display: block; }
pre { background: #f6f8fa; padding: .7rem 1rem; border-radius: 4px; overflow-x: auto; font-size: .84rem; }
"""
