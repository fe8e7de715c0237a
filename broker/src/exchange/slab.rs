//! Values that are found by a number in constant time, and whose numbers are used again.

/// Values in numbered places. A number stays valid until its value is removed.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    /// The empty places, the last freed on top, so that a slab that shrinks and grows again stays compact.
    free: Vec<usize>,
}

impl<T> Slab<T> {
    /// The number that the next [`insert`](Self::insert) will give out.
    pub(super) fn next_number(&self) -> usize {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    /// Stores a value and returns its number.
    pub(super) fn insert(&mut self, value: T) -> usize {
        let number = self.next_number();
        self.free.pop();
        match self.places.get_mut(number) {
            Some(place) => *place = Some(value),
            None => self.places.push(Some(value)),
        }
        number
    }

    pub(super) fn get(&self, number: usize) -> Option<&T> {
        self.places.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.places.get_mut(number)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<T> {
        let value = self.places.get_mut(number)?.take()?;
        self.free.push(number);
        Some(value)
    }

    /// All values, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_number_is_given_out_again_and_nothing_else_moves() {
        let mut slab = Slab::default();
        let numbers: Vec<usize> = ["a", "b", "c"].into_iter().map(|value| slab.insert(value)).collect();
        assert_eq!(slab.remove(numbers[1]), Some("b"));
        assert_eq!(slab.remove(numbers[1]), None, "removed once");
        assert_eq!(slab.get(numbers[1]), None);
        assert_eq!(slab.next_number(), numbers[1]);
        assert_eq!(slab.insert("d"), numbers[1]);
        assert_eq!(slab.iter().copied().collect::<Vec<_>>(), ["a", "d", "c"]);
    }
}
