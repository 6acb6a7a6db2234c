//! Tables of text: columns as wide as their widest cell, the last one as it comes. Next: `report`.

/// Cells are cut off beyond this, except in the last column.
const WIDEST: usize = 44;

/// A table with a head. Rows have as many cells as the head.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let last = head.len().saturating_sub(1);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count().min(WIDEST)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..last).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            match widths.get(column) {
                Some(width) => line.push_str(&format!("{:<width$}  ", cut(cell))),
                None => line.push_str(cell),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cut(cell: &str) -> String {
    if cell.chars().count() <= WIDEST {
        return cell.to_owned();
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows =
            [["a", "bcd", "why not"], ["long", "", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["X", "Y", "Z"], &rows), "X     Y    Z\na     bcd  why not\nlong\n");
        let wide = vec![vec!["x".repeat(50), "y".repeat(50)]];
        let text = table(&["A", "B"], &wide);
        assert!(text.contains(&format!("{}…  {}", "x".repeat(43), "y".repeat(50))), "{text}");
    }
}
