//! Just enough SVG for charts: shapes, text that is escaped, and axes with ticks where people expect them.
//!
//! Colours are classes of the page's style sheet, so that a drawing follows light and dark. Invariants: all text is
//! escaped; coordinates have one decimal, so equal input gives equal bytes. Next: `html::charts`.

use std::fmt::Write as _;

/// `text` for HTML and SVG, in content and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What XML forbids.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// About how wide `text` is in pixels, at `size` pixels of a usual sans-serif.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let each = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | '\'' | '|' | ' ' | '(' | ')' => 0.33,
        'm' | 'w' | 'M' | 'W' | '%' | '–' | '×' => 0.86,
        c if c.is_uppercase() => 0.70,
        _ => 0.58,
    };
    text.chars().map(each).sum::<f64>() * size
}

/// `text` shortened to about `max` pixels.
pub(super) fn fitted(text: &str, size: f64, max: f64) -> String {
    if width(text, size) <= max {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if width(&short, size) > max - size {
            break;
        }
    }
    short.pop();
    format!("{}…", short.trim_end())
}

/// Where a text's x is in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(super) const fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            self.body,
            r#"<line class="{class}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), class: &str) {
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
            at.0,
            at.1,
            size.0.max(0.0),
            size.1.max(0.0)
        );
    }

    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.body,
            r#"<text class="{class}" text-anchor="{anchor}" x="{:.1}" y="{:.1}">{}</text>"#,
            at.0,
            at.1,
            escape(text)
        );
    }

    /// Text that runs upwards, its middle at `at`.
    pub(super) fn upright(&mut self, at: (f64, f64), class: &str, text: &str) {
        let (x, y) = at;
        let _ = write!(
            self.body,
            r#"<text class="{class}" text-anchor="middle" transform="translate({x:.1} {y:.1}) rotate(-90)">{}</text>"#,
            escape(text)
        );
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    /// A mark of a shape of its own for each `index`, so that colour is not all that tells sides apart.
    /// `about` is shown when it is pointed at.
    pub(super) fn mark(&mut self, index: usize, at: (f64, f64), r: f64, class: &str, about: &str) {
        let (x, y) = at;
        let path = match index % 6 {
            0 => format!(
                "M{:.1} {y:.1}a{r:.1} {r:.1} 0 1 0 {:.1} 0a{r:.1} {r:.1} 0 1 0 {:.1} 0z",
                x - r,
                2.0 * r,
                -2.0 * r
            ),
            1 => polygon(x, y, &[(-r, -r), (r, -r), (r, r), (-r, r)]),
            2 => polygon(x, y, &[(0.0, -1.3 * r), (1.3 * r, 0.0), (0.0, 1.3 * r), (-1.3 * r, 0.0)]),
            3 => polygon(x, y, &[(0.0, -1.2 * r), (1.2 * r, r), (-1.2 * r, r)]),
            4 => polygon(x, y, &[(0.0, 1.2 * r), (1.2 * r, -r), (-1.2 * r, -r)]),
            _ => polygon(x, y, &[(-r, -1.2 * r), (r, 0.0), (-r, 1.2 * r)]),
        };
        let title = if about.is_empty() {
            String::new()
        } else {
            format!("<title>{}</title>", escape(about))
        };
        let _ = write!(self.body, r#"<path class="{class}" d="{path}">{title}</path>"#);
    }

    /// The element; `about` says what it shows to who cannot see it.
    pub(super) fn finish(self, about: &str) -> String {
        format!(
            r#"<svg class="chart" role="img" aria-label="{}" width="{w:.0}" height="{h:.0}" viewBox="0 0 {w:.0} {h:.0}">{}</svg>"#,
            escape(about),
            self.body,
            w = self.width,
            h = self.height,
        )
    }
}

fn polygon(x: f64, y: f64, corners: &[(f64, f64)]) -> String {
    let corners: Vec<String> =
        corners.iter().map(|(dx, dy)| format!("{:.1} {:.1}", x + dx, y + dy)).collect();
    format!("M{}z", corners.join("L"))
}

/// A range of values on a range of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    /// Values `low` to `high`, with some room, on the pixels `from` to `to`.
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let room = ((high - low) * 0.08).max(high.abs() * 0.01).max(f64::MIN_POSITIVE);
        // Room below zero would show values that cannot be.
        let padded = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
        Self { low: padded, high: high + room, from, to, log: false }
    }

    /// The same on a scale on which equal ratios are equal distances; values are positive.
    pub(super) fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = low.max(1e-12);
        let high = high.max(low * 1.02);
        let room = (high / low).powf(0.05);
        Self { low: low / room, high: high * room, from, to, log: true }
    }

    /// The pixel of `value`, inside the axis.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Whether `value` is on it.
    pub(super) fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// About `wanted` round values on it.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        let span = self.high / self.low.max(1e-12);
        let ticks = match self.log && span > 8.0 {
            true => self.decades(wanted),
            false => self.steps(wanted),
        };
        ticks.into_iter().filter(|tick| self.holds(*tick)).collect()
    }

    fn steps(&self, wanted: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / wanted.max(1) as f64;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|part| part * ten)
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * ten);
        let first = (self.low / step).ceil();
        (0..=2 * wanted).map(|index| (first + index as f64) * step).collect()
    }

    /// Of the usual divisions of a decade the finest that gives no more than `wanted`.
    fn decades(&self, wanted: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let divided = |parts: &[f64]| -> Vec<f64> {
            (first..=last)
                .flat_map(|ten| parts.iter().map(move |part| part * 10_f64.powi(ten)))
                .filter(|tick| self.holds(*tick))
                .collect()
        };
        let divisions: [&[f64]; 4] = [
            &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            &[1.0, 2.0, 3.0, 5.0],
            &[1.0, 2.0, 5.0],
            &[1.0, 3.0],
        ];
        let ticks = divisions.into_iter().map(divided).find(|ticks| ticks.len() <= wanted);
        ticks.unwrap_or_else(|| divided(&[1.0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape(r#"<a b="c">&'"#), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
        assert_eq!(escape("a\u{0}b"), "a\u{fffd}b");
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((1.0, 2.0), Anchor::Start, "t", "<script>");
        let text = svg.finish("\"quoted\"");
        assert!(text.contains("&lt;script&gt;") && text.contains("&quot;quoted&quot;"), "{text}");
    }

    #[test]
    fn ticks_are_round_and_on_the_axis() {
        assert_eq!(Axis::linear(0.0, 10.0, 0.0, 100.0).ticks(5), [0.0, 2.5, 5.0, 7.5, 10.0]);
        assert_eq!(Axis::linear(5_000.0, 9_000.0, 0.0, 1.0).ticks(4), [6_000.0, 8_000.0]);
        let log = Axis::log(1e3, 1e6, 0.0, 300.0);
        assert_eq!(log.ticks(5), [1e3, 1e4, 1e5, 1e6]);
        assert_eq!(Axis::log(0.34, 3.9, 0.0, 1.0).ticks(7), [0.5, 1.0, 2.0, 3.0]);
        assert!((log.at(31_622.8) - 150.0).abs() < 0.1);
        assert!(Axis::log(0.75, 1.1, 0.0, 1.0).ticks(6).contains(&1.0));
        // Of equal values, too.
        assert!(Axis::linear(3.0, 3.0, 0.0, 1.0).at(3.0).is_finite());
        assert!(Axis::linear(0.0, 0.0, 0.0, 1.0).at(0.0).is_finite());
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(fitted("short", 12.0, 100.0), "short");
        let cut = fitted("a long text that does not fit", 12.0, 60.0);
        assert!(cut.ends_with('…') && width(&cut, 12.0) <= 66.0, "{cut}");
    }
}
