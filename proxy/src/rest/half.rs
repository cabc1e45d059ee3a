//! Sixteen-bit floats from JSON numbers.

/// `value` as FP16, rounded to nearest even; `None` where it is too large.
pub(super) fn fp16(value: f64) -> Option<u16> {
    narrow(value, 5, 10)
}

/// `value` as BF16, rounded to nearest even; `None` where it is too large.
pub(super) fn bf16(value: f64) -> Option<u16> {
    narrow(value, 8, 7)
}

/// Rounds a finite value once, so that there is no second rounding by way of f32.
fn narrow(value: f64, exponent_bits: i32, mantissa_bits: i32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = u16::from(value.is_sign_negative()) << 15;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let exponent = i32::try_from((bits >> 52) & 0x7ff).ok()? - 1023;
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);

    let below_normal = (1 - bias - exponent).max(0);
    let dropped = 52 - mantissa_bits + below_normal;
    if dropped > 53 {
        return Some(sign); // less than half of the smallest number
    }
    let kept = mantissa >> dropped;
    let rest = mantissa & ((1 << dropped) - 1);
    let tie = 1 << (dropped - 1);
    let up = rest > tie || (rest == tie && kept & 1 == 1);
    // The implicit bit of a normal number, and a carry of the rounding, count the exponent up by themselves.
    let biased = if below_normal > 0 { 0 } else { u64::try_from(exponent + bias - 1).ok()? };
    let magnitude = (biased << mantissa_bits) + kept + u64::from(up);
    let infinity = ((1 << exponent_bits) - 1) << mantissa_bits;
    (magnitude < infinity).then(|| u16::try_from(magnitude).ok().map(|m| m | sign)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What sixteen bits mean.
    fn widen(bits: u16, exponent_bits: u32, mantissa_bits: u32) -> f64 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1u32 << mantissa_bits);
        let exponent = i32::from((bits >> mantissa_bits) & ((1 << exponent_bits) - 1));
        let bias = (1 << (exponent_bits - 1)) - 1;
        match exponent {
            0 => sign * mantissa * 2f64.powi(1 - bias),
            _ => sign * (1.0 + mantissa) * 2f64.powi(exponent - bias),
        }
    }

    #[test]
    fn known_values_are_rounded_to_nearest_even() {
        for (value, fp, bf) in [
            (0.0, Some(0), Some(0)),
            (-0.0, Some(0x8000), Some(0x8000)),
            (1.0, Some(0x3c00), Some(0x3f80)),
            (-2.0, Some(0xc000), Some(0xc000)),
            (65504.0, Some(0x7bff), Some(0x4780)),
            (65519.999, Some(0x7bff), Some(0x4780)),
            (65520.0, None, Some(0x4780)),
            (1.0 + 2f64.powi(-11), Some(0x3c00), Some(0x3f80)),
            (1.0 + 3.0 * 2f64.powi(-11), Some(0x3c02), Some(0x3f80)),
            (2f64.powi(-24), Some(1), Some(0x3380)),
            (2f64.powi(-25), Some(0), Some(0x3300)),
            (2f64.powi(-25) * 1.5, Some(1), Some(0x3340)),
            (3.5e38, None, None),
            (f64::from_bits(1), Some(0), Some(0)),
        ] {
            assert_eq!((fp16(value), bf16(value)), (fp, bf), "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_sixteen_bit_float_survives(bits in any::<u16>()) {
            if (bits >> 10) & 31 != 31 {
                prop_assert_eq!(fp16(widen(bits, 5, 10)), Some(bits));
            }
            if (bits >> 7) & 255 != 255 {
                prop_assert_eq!(bf16(widen(bits, 8, 7)), Some(bits));
            }
        }

        #[test]
        fn rounding_finds_the_nearest(value in -70000f64..70000.0) {
            if let Some(bits) = fp16(value) {
                let off = (widen(bits, 5, 10) - value).abs();
                for near in [bits.wrapping_add(1), bits.wrapping_sub(1)] {
                    if (near >> 10) & 31 != 31 && near >> 15 == bits >> 15 {
                        prop_assert!(off <= (widen(near, 5, 10) - value).abs());
                    }
                }
            }
        }
    }
}
