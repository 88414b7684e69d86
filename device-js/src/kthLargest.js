/** Selection without a sort: a vocabulary has 150,000 scores, and few of them count. */

/**
 * The `count`-th largest of `values`, which are reordered; 1 <= count <= length.
 * @param {Float64Array} values no NaN
 * @param {number} count
 */
export function kthLargest(values, count) {
  const wanted = count - 1;
  let low = 0;
  let high = values.length - 1;
  while (low < high) {
    const pivot = values[(low + high) >>> 1];
    let left = low;
    let right = high;
    while (left <= right) {
      while (values[left] > pivot) left++;
      while (values[right] < pivot) right--;
      if (left <= right) {
        const swapped = values[left];
        values[left++] = values[right];
        values[right--] = swapped;
      }
    }
    // Now [low, right] >= pivot >= [left, high], and what lies between equals it.
    if (wanted <= right) high = right;
    else if (wanted >= left) low = left;
    else break;
  }
  return values[wanted];
}
