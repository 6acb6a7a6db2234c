//! A flame graph as one SVG: callers below what they call, as wide as they have samples.
//!
//! It is a file of its own that needs no script and loads nothing: colours follow light and dark, names are cut to fit, and what
//! is pointed at says its whole name and share. Colour says user or kernel, its shade nothing. Invariants: equal
//! input gives equal bytes; what is narrower than [`WIDTH_MIN`] is left out, with what it calls, and said so.
//! Next: `flamegraph::fold`, whose stacks are drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::svg::{escape, fitted};
use crate::flamegraph::Folded;

/// Pixels of all samples.
const WIDTH: f64 = 1180.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 17.0;
/// Above the graph and below it.
const HEAD: f64 = 44.0;
const FOOT: f64 = 24.0;
const TEXT: f64 = 11.5;
/// What is narrower is not drawn.
pub const WIDTH_MIN: f64 = 0.2;
/// What is narrower has no name on it.
const NAMED_MIN: f64 = 24.0;
/// Shades of each colour.
const SHADES: usize = 6;

const STYLE: &str = "<style>\
text{font:11.5px system-ui,sans-serif;fill:#1a1a1a}.t{font-size:16px}.n{fill:#555}\
rect{stroke:#fff;stroke-width:.5}.b{fill:#fdfdfb;stroke:none}\
.u0{fill:#e8a33d}.u1{fill:#ecaf55}.u2{fill:#e6963a}.u3{fill:#f0bb6e}.u4{fill:#dd8f35}.u5{fill:#eaa94c}\
.k0{fill:#74b3d8}.k1{fill:#86bddd}.k2{fill:#65a9d2}.k3{fill:#98c7e2}.k4{fill:#5b9fc9}.k5{fill:#7db8da}\
.a{fill:#d6d3cc}\
g:hover>rect{stroke:#000;stroke-width:1.5}\
@media(prefers-color-scheme:dark){.b{fill:#181818}.t,.n{fill:#ddd}rect{stroke:#181818}g:hover>rect{stroke:#fff}}\
</style>";

#[derive(Debug, Default)]
struct Node<'a> {
    samples: u64,
    calls: BTreeMap<&'a str, Self>,
}

impl<'a> Node<'a> {
    fn add(&mut self, stack: &'a str, samples: u64) {
        self.samples += samples;
        let mut node = self;
        for name in stack.split(';') {
            node = node.calls.entry(name).or_default();
            node.samples += samples;
        }
    }
}

struct Drawing {
    body: String,
    /// Samples of all.
    total: u64,
    /// Rows above the lowest.
    depth: usize,
    /// Frames left out.
    left_out: usize,
}

/// Draws `folded`; `title` and `note` stand above it.
#[must_use]
pub fn draw(folded: &Folded, title: &str, note: &str) -> String {
    let mut root = Node::default();
    for (stack, samples) in folded.stacks() {
        root.add(stack, samples);
    }
    let rows = rows(&root, WIDTH / root.samples.max(1) as f64);
    let height = HEAD + ROW * rows as f64 + FOOT;
    let mut drawing =
        Drawing { body: String::new(), total: root.samples, depth: rows - 1, left_out: 0 };
    drawing.frame("all", &root, 0, MARGIN);
    let width = WIDTH + 2.0 * MARGIN;
    let left_out = match drawing.left_out {
        0 => String::new(),
        count => format!("; {count} frames narrower than {WIDTH_MIN} pixels are left out"),
    };
    let foot = format!(
        "{} samples. Width is the share of samples; callers stand below what they call. Orange is the program, blue \
         the kernel{left_out}.",
        root.samples
    );
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}">{STYLE}<rect class="b" width="{width:.0}" height="{height:.0}"/><text class="t" x="{MARGIN}" y="20">{}</text><text class="n" x="{MARGIN}" y="37">{}</text>{}<text class="n" x="{MARGIN}" y="{:.0}">{}</text></svg>
"#,
        escape(title),
        escape(title),
        escape(note),
        drawing.body,
        height - 8.0,
        escape(&foot),
    )
}

/// How many rows are drawn, of frames that are wide enough.
fn rows(node: &Node<'_>, pixels_each: f64) -> usize {
    let wide = node.calls.values().filter(|call| call.samples as f64 * pixels_each >= WIDTH_MIN);
    1 + wide.map(|call| rows(call, pixels_each)).max().unwrap_or(0)
}

impl Drawing {
    fn frame(&mut self, name: &str, node: &Node<'_>, row: usize, x: f64) {
        let pixels_each = WIDTH / self.total.max(1) as f64;
        let width = node.samples as f64 * pixels_each;
        let y = HEAD + ROW * (self.depth - row) as f64;
        let share = 100.0 * node.samples as f64 / self.total.max(1) as f64;
        let plural = if node.samples == 1 { "" } else { "s" };
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            self.body,
            r#"<g><title>{} ({} sample{plural}, {share:.2} %)</title><rect class="{}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}"/>"#,
            escape(name),
            node.samples,
            class(name, row),
            ROW - 1.0,
        );
        if width >= NAMED_MIN {
            let shown = fitted(name.strip_suffix("_[k]").unwrap_or(name), TEXT, width - 6.0);
            let _ = write!(
                self.body,
                r#"<text x="{:.1}" y="{:.1}">{}</text>"#,
                x + 3.0,
                y + 12.0,
                escape(&shown)
            );
        }
        self.body.push_str("</g>");
        let mut at = x;
        for (name, call) in &node.calls {
            let width = call.samples as f64 * pixels_each;
            if width >= WIDTH_MIN {
                self.frame(name, call, row + 1, at);
            } else {
                self.left_out += 1;
            }
            at += width;
        }
    }
}

/// Who runs there, and a shade that depends on the name alone.
fn class(name: &str, row: usize) -> String {
    if row == 0 {
        return "a".to_owned();
    }
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let kind = if name.ends_with("_[k]") { 'k' } else { 'u' };
    format!("{kind}{}", hash as usize % SHADES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(stacks: &[(&str, usize)]) -> Folded {
        let mut text = String::new();
        for (stack, samples) in stacks {
            let (thread, frames) = stack.split_once(';').unwrap_or((stack, ""));
            let frames: String = frames
                .rsplit(';')
                .filter(|name| !name.is_empty())
                .map(|name| format!(" 1 {name} (x)\n"))
                .collect();
            text.push_str(&format!("{thread} 1/1\n{frames}\n").repeat(*samples));
        }
        Folded::read(text.as_bytes()).expect("as perf prints it")
    }

    /// Elements in order, each `<` closed, nothing open at the end, and only entities that XML has.
    fn well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg.trim_end();
        while let Some(at) = rest.find('<') {
            let (text, tag) = rest.split_at(at);
            assert!(!text.contains('>'), "{text}");
            for part in text.split('&').skip(1) {
                assert!(
                    ["amp;", "lt;", "gt;", "quot;", "#39;"]
                        .iter()
                        .any(|name| part.starts_with(name)),
                    "{part}"
                );
            }
            let end = tag.find('>').expect("a tag ends");
            let inside = &tag[1..end];
            let name = inside.trim_start_matches('/').split(' ').next().expect("a name");
            assert_eq!(inside.matches('"').count() % 2, 0, "{inside}");
            if inside.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{inside}");
            } else if !inside.ends_with('/') {
                open.push(name);
            }
            rest = &tag[end + 1..];
            if name == "style" && !inside.starts_with('/') {
                rest = &rest[rest.find("</style>").expect("it ends")..];
            }
        }
        assert!(open.is_empty() && rest.is_empty(), "{open:?} {rest}");
    }

    fn widths(svg: &str) -> Vec<(String, f64)> {
        svg.split("<title>")
            .skip(1)
            .map(|part| {
                let name = part.split(" (").next().expect("a name").to_owned();
                let width = part.split("width=\"").nth(1).expect("a width");
                (
                    name,
                    width.split('"').next().and_then(|text| text.parse().ok()).expect("a number"),
                )
            })
            .collect()
    }

    #[test]
    fn widths_are_samples_and_callers_stand_below() {
        let svg = draw(&folded(&[("a;f;g", 3), ("a;f", 1), ("b;h_[k]", 4)]), "a title", "a note");
        well_formed(&svg);
        let expected = [
            ("all", WIDTH),
            ("a", 590.0),
            ("f", 590.0),
            ("g", 442.5),
            ("b", 590.0),
            ("h_[k]", 590.0),
        ];
        assert_eq!(widths(&svg), expected.map(|(name, width)| (name.to_owned(), width)));
        assert!(svg.contains("<title>g (3 samples, 37.50 %)</title>"), "{svg}");
        let y = |name: &str| -> f64 {
            let part = svg.split(&format!("<title>{name} (")).nth(1).expect("drawn");
            part.split(" y=\"").nth(1).and_then(|y| y.split('"').next()?.parse().ok()).expect("a y")
        };
        assert!(y("all") > y("a") && y("a") > y("f") && y("f") > y("g"));
        assert!(
            svg.contains("class=\"k") && svg.contains(">h<") && !svg.contains("<script"),
            "{svg}"
        );
        assert_eq!(
            svg,
            draw(&folded(&[("b;h_[k]", 4), ("a;f;g", 3), ("a;f", 1)]), "a title", "a note")
        );
    }

    #[test]
    fn names_are_escaped_and_cut() {
        let name = "<T as \"X\">::f&g'h::with_a_name_that_is_longer_than_its_frame_is_wide";
        let svg = draw(&folded(&[(&format!("a;{name}"), 1), ("a;other", 12)]), "<&>", "\"");
        well_formed(&svg);
        assert!(svg.contains("<title>&lt;T as &quot;X&quot;&gt;::f&amp;g&#39;h::"), "{svg}");
        assert!(svg.contains('…'));
    }

    #[test]
    fn what_is_too_narrow_is_left_out_and_said_so() {
        // A fiftieth of a pixel more than the least, and one less.
        let share = |samples: usize| draw(&folded(&[("a;f", 5_899), ("a;g;h", samples)]), "", "");
        let drawn = share(1);
        assert!(drawn.contains("<title>g (") && !drawn.contains("left out"), "{}", WIDTH / 5_900.0);
        let hidden = draw(&folded(&[("a;f", 5_900), ("a;g;h", 1)]), "", "");
        assert!(!hidden.contains("<title>g (") && hidden.contains("1 frames narrower"), "{hidden}");
        well_formed(&hidden);
        well_formed(&draw(&folded(&[]), "nothing", ""));
    }
}
