//! Finds what somebody probably meant.

/// Beyond so many mistakes no spellings are suggested: comparing names would take longer than anybody reads.
pub(crate) const SUGGESTIONS: usize = 200;

/// Returns the candidate nearest to what was written, if it is near enough to be meant.
pub fn nearest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(written, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(one, a), (other, b)| one.total_cmp(other).then_with(|| b.cmp(a)))
        .map(|(_, candidate)| candidate)
}

/// Says "did you mean", or else what there is.
pub(crate) fn did_you_mean<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str> + Clone) -> Option<String> {
    if let Some(nearest) = nearest(written, candidates.clone()) {
        return Some(format!("did you mean `{nearest}`?"));
    }
    let mut all: Vec<String> = candidates.into_iter().take(13).map(|candidate| format!("`{candidate}`")).collect();
    if all.len() == 13 {
        "...".clone_into(&mut all[12]);
    }
    (!all.is_empty()).then(|| format!("there is {}", all.join(", ")))
}
