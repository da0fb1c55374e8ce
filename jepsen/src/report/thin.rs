//! Fewer points for the same picture: what would cover another point is left out, what stands out is kept.

use std::collections::{BTreeMap, BTreeSet};

/// A place in a plot, in pixels.
pub(super) type Point = [f64; 2];

/// The finest cell that a point is alone in.
const CELL_SIZE_MIN: f64 = 0.5;

/// At most about `points_max` of the points, the same each time. In every column of a cell's width the highest and the lowest
/// point stay, so that no outlier vanishes, however many points there are.
pub(super) fn thin(points: &[Point], points_max: usize) -> Vec<Point> {
    let mut size = CELL_SIZE_MIN;
    loop {
        let kept = thin_to_cells(points, size);
        if kept.len() <= points_max || size > 64.0 {
            return kept;
        }
        size *= 2.0;
    }
}

fn thin_to_cells(points: &[Point], size: f64) -> Vec<Point> {
    let cell = |value: f64| (value / size).floor() as i64;
    let mut extremes: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
    for (index, [x, y]) in points.iter().enumerate() {
        let (low, high) = extremes.entry(cell(*x)).or_insert((index, index));
        if *y < points[*low][1] {
            *low = index;
        }
        if *y > points[*high][1] {
            *high = index;
        }
    }
    let mut kept: BTreeSet<usize> = extremes.into_values().flat_map(|(low, high)| [low, high]).collect();
    let mut taken: BTreeSet<(i64, i64)> = kept.iter().map(|index| points[*index].map(cell).into()).collect();
    for (index, point) in points.iter().enumerate() {
        if taken.insert(point.map(cell).into()) {
            kept.insert(index);
        }
    }
    kept.into_iter().map(|index| points[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::thin;

    #[test]
    fn few_points_all_stay() {
        let points: Vec<[f64; 2]> = (0..50).map(|step| [f64::from(step), f64::from(step % 7)]).collect();
        assert_eq!(thin(&points, 100), points);
    }

    #[test]
    fn a_crowd_shrinks_and_its_outliers_stay() {
        let mut points: Vec<[f64; 2]> = (0..100_000_u32)
            .map(|step| [f64::from(step) / 100.0, f64::from(step.wrapping_mul(2_654_435_761) >> 24) / 4.0])
            .collect();
        points[77_777][1] = -100.0;
        points[33_333][1] = 500.0;
        let kept = thin(&points, 5_000);
        assert!(kept.len() <= 5_000, "{} points are left", kept.len());
        assert!(kept.contains(&points[77_777]) && kept.contains(&points[33_333]));
        assert_eq!(kept, thin(&points, 5_000), "drawing twice gives the same picture");
    }
}
