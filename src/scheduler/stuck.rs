//! How many threads may be stuck in a turn that no tick ends, and be replaced by others.

/// Of one kind, in all, for each processor.
const FOR_EACH: u32 = 16;

/// The fewer are left, the fewer an app may use of them: a quarter of those.
const SHARE: u32 = 4;

/// Whether another thread may take the place of one that is stuck. An app has one for each processor at the most, by turns that began
/// before the first of them was seen to be stuck; and it leaves others some. One that is not replaced is missed until its turn ends.
pub(super) fn may_be_replaced(of_lane: u32, of_all: u32, processors: u32) -> bool {
    let left = processors.saturating_mul(FOR_EACH).saturating_sub(of_all);
    of_lane < processors.min(left.div_ceil(SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many threads each of so many apps gets replaced that have as many turns without an end as they can.
    fn replaced(apps: usize, processors: u32) -> Vec<u32> {
        let mut all = vec![0; apps];
        for app in 0..apps {
            for _ in 0..1000 {
                let of_all = all.iter().sum();
                if let Some(of_lane) = all.get_mut(app)
                    && may_be_replaced(*of_lane, of_all, processors)
                {
                    *of_lane += 1;
                }
            }
        }
        all
    }

    #[test]
    fn an_app_has_one_for_each_processor() {
        for processors in [1, 2, 4, 64, 256] {
            assert_eq!(replaced(1, processors), [processors]);
        }
    }

    #[test]
    fn no_app_uses_up_what_others_need() {
        for processors in [1, 2, 4, 64] {
            let all = replaced(16, processors);
            assert!(all.iter().all(|of_lane| *of_lane > 0), "{processors}: {all:?}");
            assert!(all.iter().sum::<u32>() <= processors * FOR_EACH);
        }
    }
}
