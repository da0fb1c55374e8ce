//! The few shapes that the pictures are made of. All text goes through here, and so is escaped.

use super::text::escape;

/// How wide a character is taken to be, as a part of the font's size: pictures must leave room for labels, and only a browser
/// knows the font. On the safe side for sans-serif fonts.
const CHARACTER_WIDTH: f64 = 0.58;

/// A picture's parts, one after the other.
#[derive(Debug, Default)]
pub(super) struct Svg(String);

impl Svg {
    /// The parts as text.
    pub(super) fn into_string(self) -> String {
        self.0
    }

    /// Puts another picture's parts behind.
    pub(super) fn append(&mut self, other: Svg) {
        self.0 += &other.0;
    }

    /// Opens an element; `attributes` as they stand in the tag, made of figures and fixed words only.
    pub(super) fn open(&mut self, tag: &str, attributes: &str) {
        self.0 += &format!("<{tag} {attributes}>");
    }

    /// Closes it.
    pub(super) fn close(&mut self, tag: &str) {
        self.0 += &format!("</{tag}>");
    }

    /// A rectangle with a tooltip (none where it is empty).
    pub(super) fn rectangle(&mut self, class: &str, [x, y, width, height]: [f64; 4], tooltip: &str) {
        let place = format!(
            r#"class="{class}" x="{}" y="{}" width="{}" height="{}""#,
            figure(x),
            figure(y),
            figure(width),
            figure(height)
        );
        self.0 += &match tooltip {
            "" => format!("<rect {place}/>"),
            _ => format!("<rect {place}><title>{}</title></rect>", escape(tooltip)),
        };
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, [x, y]: [f64; 2], [to_x, to_y]: [f64; 2]) {
        self.path(class, &format!("M{} {}L{} {}", figure(x), figure(y), figure(to_x), figure(to_y)), "");
    }

    /// A path by its commands, with a tooltip.
    pub(super) fn path(&mut self, class: &str, commands: &str, tooltip: &str) {
        self.0 += &match tooltip {
            "" => format!(r#"<path class="{class}" d="{commands}"/>"#),
            _ => format!(r#"<path class="{class}" d="{commands}"><title>{}</title></path>"#, escape(tooltip)),
        };
    }

    /// A label; its anchor is a matter of its class.
    pub(super) fn label(&mut self, class: &str, [x, y]: [f64; 2], text: &str) {
        self.0 +=
            &format!(r#"<text class="{class}" x="{}" y="{}">{}</text>"#, figure(x), figure(y), escape(text));
    }

    /// A label that moves with the time axis when the page is zoomed: `at` is its place within the plot, `left` the
    /// plot's own.
    pub(super) fn moving_label(&mut self, class: &str, left: f64, at: f64, y: f64, text: &str) {
        self.0 += &format!(
            r#"<text class="{class}" x="{}" y="{}" data-at="{}">{}</text>"#,
            figure(left + at),
            figure(y),
            figure(at),
            escape(text)
        );
    }
}

/// A coordinate: a tenth of a pixel is as fine as anyone can see.
///
/// # Panics
/// If it is not a number: then a scale is wrong, and the picture would be nonsense.
pub(super) fn figure(value: f64) -> String {
    assert!(value.is_finite(), "coordinates are finite");
    let tenths = (value * 10.0).round() as i64;
    let sign = if tenths < 0 { "-" } else { "" };
    match (tenths.abs() / 10, tenths.abs() % 10) {
        (whole, 0) => format!("{sign}{whole}"),
        (whole, tenth) => format!("{sign}{whole}.{tenth}"),
    }
}

/// About how wide a text is, in pixels.
pub(super) fn text_width(text: &str, font_size: f64) -> f64 {
    text.chars().count() as f64 * font_size * CHARACTER_WIDTH
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_are_as_short_as_can_be() {
        assert_eq!(
            [0.0, 1.0, 1.04, 1.06, -0.26, 1160.25].map(figure),
            ["0", "1", "1", "1.1", "-0.3", "1160.3"]
        );
    }

    #[test]
    #[should_panic(expected = "coordinates are finite")]
    fn no_picture_has_a_coordinate_that_is_no_number() {
        figure(f64::NAN);
    }
}
