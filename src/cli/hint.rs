//! What an operator can do about an error: said last, never in place of what happened.

use std::fmt;

/// Advice that an error carries to the top.
#[derive(Debug)]
struct Hint(String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error, with advice where there is some.
pub(super) fn advised<H: Into<String>>(
    error: impl Into<anyhow::Error>,
    hint: Option<H>,
) -> anyhow::Error {
    match hint {
        Some(hint) => error.into().context(Hint(hint.into())),
        None => error.into(),
    }
}

/// An error with its causes and the advice that it carries, for a person.
pub fn render(error: &anyhow::Error) -> String {
    let hint = error.downcast_ref::<Hint>();
    let mut lines: Vec<String> =
        error.chain().skip(usize::from(hint.is_some())).map(ToString::to_string).collect();
    lines.dedup();
    let said = lines.join("\n  because: ");
    match hint {
        Some(hint) => format!("error: {said}\nhint: {hint}\n"),
        None => format!("error: {said}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_comes_first_and_what_to_do_last() {
        let error = anyhow::anyhow!("the disk is full").context("could not write");
        let plain = "error: could not write\n  because: the disk is full\n";
        assert_eq!(render(&error), plain);
        let advised = advised(error, Some("Make room."));
        assert_eq!(render(&advised), format!("{plain}hint: Make room.\n"));
    }
}
