//! The parts of a batch that are still to be written, when locks were in the way of the whole.

use crate::pipeline::batch::Batch;

/// Puts a batch that met somebody's locks back in halves. A row that cannot be halved any more comes
/// after all others, and what accounts for them comes last.
///
/// `parts` is a stack: its end is next.
pub(super) fn again_in_halves(parts: &mut Vec<Batch>, part: Batch) {
    if part.rows.is_empty() {
        parts.push(part);
        return;
    }
    let (rows, account) = part.apart();
    parts.extend(account);
    let single = match rows.halve() {
        Ok((first, second)) => return parts.extend([second, first]),
        Err(single) => single,
    };
    let mut reordered = Vec::with_capacity(parts.len() + 2);
    let mut rest = std::mem::take(parts).into_iter();
    match rest.next() {
        Some(last) => {
            let (rows, account) = last.apart();
            reordered.extend(account);
            reordered.push(single);
            reordered.extend((!rows.rows.is_empty()).then_some(rows));
        }
        None => reordered.push(single),
    }
    reordered.extend(rest);
    *parts = reordered;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::batch::Window;
    use crate::pipeline::change::Origin;
    use crate::pipeline::checkpoint::{Lane, Mark};
    use crate::pipeline::mutation::{Effect, Mutation};
    use crate::pipeline::position::{PartitionId, Position};
    use crate::pipeline::progress::Mode;
    use crate::table::{Key, Value};

    /// Takes a batch of `rows` through a database in which the row `locked` stays locked until all
    /// others are written, and tells the order of what was written.
    fn written_around(rows: i64, locked: &str) -> (Vec<String>, Vec<Position>) {
        let mut window = Window::open(PartitionId::new("t", 0), Lane::ONLY, Position(-1));
        for id in 0..rows {
            let key = Key::one(id.to_string());
            let effect = Effect::Mutate(Mutation::Fill {
                key,
                seen: vec![Value::Null],
                values: vec![Value::Null],
            });
            window.change(Position(id), Mark::default(), Origin::default(), effect);
        }
        let mut parts = window.close(Mode::Tail, 1, 100, 1 << 20);
        let (mut written, mut accounted) = (Vec::new(), Vec::new());
        while let Some(part) = parts.pop() {
            let keys: Vec<_> =
                part.rows.iter().map(|row| row.mutation.key().part(0).to_owned()).collect();
            let others_left = (written.len() as i64) < rows - 1;
            if keys.iter().any(|key| key == locked) && (others_left || keys.len() > 1) {
                again_in_halves(&mut parts, part);
                continue;
            }
            written.extend(keys);
            if part.delta.to != part.delta.from {
                assert!(parts.is_empty(), "what accounts for the rows comes last");
                accounted.push(part.delta.to);
            }
        }
        (written, accounted)
    }

    #[test]
    fn a_locked_row_comes_after_all_others_and_before_what_accounts_for_it() {
        for rows in 1..20 {
            for locked in 0..rows {
                let locked = locked.to_string();
                let (written, accounted) = written_around(rows, &locked);
                assert_eq!(written.len() as i64, rows);
                assert_eq!(written.last(), Some(&locked));
                assert_eq!(accounted, [Position(rows - 1)]);
            }
        }
    }
}
